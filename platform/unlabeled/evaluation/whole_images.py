"""Features of images that are encoded as a whole, each in its own proportions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from unlabeled.data.decode import BrokenImage
from unlabeled.data.loader.stream import worker_count
from unlabeled.data.sources.base import Source
from unlabeled.distributed import comm
from unlabeled.errors import DataError
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.features import gather_rows
from unlabeled.evaluation.token_features import whole_patches

Resize = Callable[[Image.Image], Image.Image]


def longest_side(side: int) -> Resize:
    """Shrink to at most `side` x `side`, keeping proportions; smaller images stay as they are."""

    def resized(picture: Image.Image) -> Image.Image:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        return picture

    return resized


def square(side: int) -> Resize:
    """Resize to side x side, whatever the proportions were (bicubic)."""
    return lambda picture: picture.resize((side, side), Image.Resampling.BICUBIC)


@torch.no_grad()
def whole_features(
    probe: Probe, source: Source, resize: Resize, scales: Sequence[float] = (1.0,)
) -> Tensor:
    """Features float32 [N, D] of all images, in order, in host memory.

    Consecutive images of equal size are encoded together; a vision transformer does not see the
    right and lower border that fills no patch. DataError if an image cannot be decoded
    or a feature is not finite: a search with images left out is another search.
    Under DDP each rank encodes a contiguous share and receives all rows.
    """
    ranks = comm.world_size()
    share = range(*(len(source) * (comm.rank() + part) // ranks for part in (0, 1)))
    encode = whole_patches(probe.backbone, probe.encode)
    parts, broken = [torch.empty(0, 0)], []
    for stack in _stacks(source, share, resize, probe):
        if isinstance(stack, str):
            broken.append(stack)
            continue
        images = probe.normalize(stack.to(probe.device))  # [B, 3, h, w]
        parts.append(over_scales(encode, images, scales).cpu())
    faults = [fault for each in comm.all_gather_objects(broken) for fault in each]
    if faults:
        raise DataError(
            f"{len(faults)} of {len(source)} images cannot be decoded, the first is {faults[0]}; "
            "this benchmark needs all of them"
        )
    own = torch.cat(parts[1:] or parts)
    features = gather_rows(own, probe.device)
    if not torch.isfinite(features).all():
        worst = source.name(int((~torch.isfinite(features).all(dim=1)).nonzero()[0]))
        raise DataError(
            f"the features of {worst} are NaN or infinite: the weights have diverged or the "
            "precision is too low for them"
        )
    return features


def over_scales(
    encode: Callable[[Tensor], Tensor], images: Tensor, scales: Sequence[float]
) -> Tensor:
    """Mean feature over resized copies of normalised images [B, 3, h, w]; float32 [B, D].

    Resized bilinearly without antialiasing (DINO utils.multi_scale).
    """
    total = sum(
        encode(
            images
            if scale == 1
            else F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
        ).float()
        for scale in scales
    )
    assert isinstance(total, Tensor)
    return total / len(scales)


def _stacks(source: Source, share: range, resize: Resize, probe: Probe) -> Iterator[Tensor | str]:
    """Stacks uint8 [B, 3, h, w] of the share's images in order, and what is broken as text."""
    rows = max(1, probe.batch_size // comm.world_size())

    def load(index: int) -> np.ndarray | str:
        try:
            pixels = source.image(index)
        except BrokenImage as error:
            return f"{source.name(index)} ({error})"
        return np.asarray(resize(Image.fromarray(pixels)))

    with ThreadPoolExecutor(max(1, worker_count(probe.loader, probe.device))) as pool:
        for start in range(0, len(share), rows):
            loaded = list(pool.map(load, share[start : start + rows]))
            yield from (each for each in loaded if isinstance(each, str))
            pictures = [each for each in loaded if not isinstance(each, str)]
            for _, group in groupby(pictures, key=lambda picture: picture.shape):
                stack = np.stack(list(group)).transpose(0, 3, 1, 2)  # [B, 3, h, w]
                yield torch.from_numpy(np.ascontiguousarray(stack))
