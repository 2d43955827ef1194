"""Video object segmentation: objects of the first frame, followed by features alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from unlabeled.config.ranges import at_least, positive
from unlabeled.data.decode import BrokenImage
from unlabeled.data.sources.videos import VideoSource
from unlabeled.distributed import comm
from unlabeled.errors import ConfigError, DataError
from unlabeled.evaluation.benchmarks.base import Benchmark, Probe
from unlabeled.evaluation.label_propagation import index_map, track
from unlabeled.evaluation.mask_measures import boundary_accuracy, region_similarity
from unlabeled.evaluation.token_features import Encode, require_map
from unlabeled.registry import register

log = logging.getLogger(__name__)

UNKNOWN = 255


@register("benchmark", "video_segmentation")
class VideoSegmentation(Benchmark):
    """Masks of the first frame carried on by similar features, by DINO's protocol for DAVIS 2017.

    Frames are resized to a shorter side of `image_size` and a longer one of a multiple of 64; each
    place of a feature map takes the masks of the `top` most similar places in the first frame and
    the `previous_frames` before its own, within `radius` places, weighted by exp(cosine /
    temperature). Metrics, in percent: j_and_f, and its halves j (region) and f (boundary), means
    over all objects of means over all frames but the first and the last. No mask but the first
    frame's is looked at before the measuring.
    Raises ConfigError if the backbone has no module `layer` that gives maps [B, C, h, w], or with
    layer=null no map of its own; DataError for a data set without videos, a video of fewer than
    three frames or without an object in the first, or a frame that cannot be decoded. Under DDP the
    ranks share the videos.
    Reference: Caron et al., DINO, arXiv:2104.14294, section 4.2.2, and its
    eval_video_segmentation.py; Pont-Tuset et al., arXiv:1704.00675.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of `configs/benchmark/video_segmentation.yaml`."""

        layer: str | None = "layer3"
        """The module of the backbone whose map is compared; layer3 of a ResNet has stride 16. null:
        the backbone's own map, which of a ViT are the patch tokens of the last block (DINO)."""
        image_size: int = 480
        """Shorter side of the frames, in pixels (DINO)."""
        previous_frames: int = 7
        """Frames that masks come from beside the first (DINO)."""
        radius: int = 12
        """Rows and columns of the map that a match may be away (DINO)."""
        top: int = 5
        """Most similar places that count (DINO)."""
        temperature: float = 0.1
        """Of the similarities (DINO)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            yield from positive(self, "image_size", "previous_frames", "top", "temperature")
            yield from at_least(self, 0, "radius")

    config: Config

    @property
    def protocol(self) -> str:
        layer = self.config.layer or "the last feature map"
        return (
            f"video object segmentation by the features of {layer}, shorter side "
            f"{self.config.image_size}, first frame and {self.config.previous_frames} before, top "
            f"{self.config.top}, J and F (DINO, arXiv:2104.14294, section 4.2.2)"
        )

    def run(self, probe: Probe) -> dict[str, float]:
        source = probe.test
        if not isinstance(source, VideoSource) or not source.videos:
            raise DataError("this benchmark follows objects through videos; give dataset=davis")
        firsts = [source.mask(video[0]) for video in source.videos]
        for video, first in zip(source.videos, firsts, strict=True):
            marked = bool(((first > 0) & (first != UNKNOWN)).any())
            if len(video) < 3 or not marked:
                raise DataError(
                    f"the video of {source.name(video[0])} has {len(video)} frames and "
                    f"{'an' if marked else 'no'} object in the first; it needs three and an object"
                )
        encode = LayerMap(probe, self.config.layer)
        own, faults = [], []
        for number in range(comm.rank(), len(source.videos), comm.world_size()):
            video = source.videos[number]
            try:
                found = self.masks(source, video, firsts[number], encode)
                own.append((number, measure(list(found), source, video)))
            except BrokenImage as error:
                faults.append(f"{source.name(video[0])} ({error})")
            log.info("video segmentation: %d of %d videos", number + 1, len(source.videos))
        if broken := [fault for each in comm.all_gather_objects(faults) for fault in each]:
            raise DataError(f"frames cannot be decoded, in the video of {broken[0]}")
        videos = sorted(each for part in comm.all_gather_objects(own) for each in part)
        j, f = (100 * np.array([pair for _, pairs in videos for pair in pairs])).mean(axis=0)
        return {"j_and_f": float(j + f) / 2, "j": float(j), "f": float(f)}

    def masks(
        self, source: VideoSource, video: range, first: np.ndarray, encode: LayerMap
    ) -> Iterator[np.ndarray]:
        """The object of every pixel, uint8 [h, w], of every frame but the first."""
        pictures = (shorter_side(source.image(index), self.config.image_size) for index in video)
        maps = (encode(picture) for picture in pictures)
        start = next(maps)  # [D, h, w]
        known = np.where(first == UNKNOWN, 0, first)
        places = (start.shape[2], start.shape[1])
        small = Image.fromarray(known).resize(places, Image.Resampling.NEAREST)
        objects = torch.from_numpy(np.array(small)).long().to(start.device)
        one_hot = F.one_hot(objects, int(known.max()) + 1).permute(2, 0, 1).float()  # [C, h, w]
        height, width = first.shape
        for soft in track(_with_first(start, maps), one_hot, self.config):
            pixels = index_map(soft, encode.size).byte().cpu().numpy()
            picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
            yield np.array(picture)


def measure(
    found: list[np.ndarray], source: VideoSource, video: range
) -> list[tuple[float, float]]:
    """(J, F) of every object: means over the frames between the first and the last."""
    truths = [source.mask(index) for index in video]
    objects = max(int(np.where(truth == UNKNOWN, 0, truth).max()) for truth in truths)
    pairs = []
    for number in range(1, objects + 1):
        scores = [
            (
                region_similarity(mask == number, truth == number),
                boundary_accuracy(mask == number, truth == number),
            )
            for mask, truth in zip(found[:-1], truths[1:-1], strict=True)
        ]
        j, f = np.array(scores).mean(axis=0)
        pairs.append((float(j), float(f)))
    return pairs


def shorter_side(pixels: np.ndarray, side: int) -> np.ndarray:
    """Resized to a shorter side of `side` pixels, the longer one cut to a multiple of 64."""
    height, width = pixels.shape[:2]
    long = max(64, side * max(height, width) // min(height, width) // 64 * 64)
    size = (side, long) if height > width else (long, side)  # width, height
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def _with_first(first: Tensor, rest: Iterator[Tensor]) -> Iterator[Tensor]:
    yield first
    yield from rest


class LayerMap:
    """uint8 [h, w, 3] -> the map [D, h', w'] of a module of the backbone, float32.

    Without a module it is the map that the backbone offers as its own.
    """

    def __init__(self, probe: Probe, layer: str | None) -> None:
        self._probe = probe
        self._maps: Encode = (
            require_map(probe.backbone, "benchmark.layer").feature_map
            if layer is None
            else _output_of(probe, layer)
        )
        self.size = (0, 0)
        """Height and width of the last frame, as it was encoded."""

    @torch.no_grad()
    def __call__(self, pixels: np.ndarray) -> Tensor:
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        maps = self._maps(self._probe.normalize(image[None].to(self._probe.device)))
        self.size = (pixels.shape[0], pixels.shape[1])
        return maps[0].float()


def _output_of(probe: Probe, layer: str) -> Encode:
    """What a module of the backbone gives on the way to the features: maps [B, C, h, w]."""
    modules = dict(probe.backbone.named_modules())
    if layer not in modules:
        top = [name for name in modules if name and "." not in name]
        raise ConfigError(
            f"benchmark.layer: the backbone has no module {layer!r}; at its top: "
            f"{', '.join(top) or 'none'}. A ViT is measured with benchmark.layer=null"
        )

    def encode(images: Tensor) -> Tensor:
        found: list[Any] = []
        # A copy: an activation that works in place would overwrite the map after the hook.
        keep = modules[layer].register_forward_hook(lambda *args: found.append(_copied(args[2])))
        try:
            probe.encode(images)
        finally:
            keep.remove()
        if len(found) != 1 or not isinstance(found[0], Tensor) or found[0].ndim != 4:
            raise ConfigError(
                f"benchmark.layer: {layer} gives no map [B, C, h, w]; choose a stage of the "
                "backbone, such as layer3 or layer4 of a ResNet"
            )
        return found[0]

    return encode


def _copied(output: Any) -> Any:
    return output.clone() if isinstance(output, Tensor) else output
