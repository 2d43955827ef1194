"""Mask quality: whether the attention of a vision transformer lies on the objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from unlabeled.config.ranges import at_least
from unlabeled.data.decode import BrokenImage
from unlabeled.data.sources.videos import VideoSource
from unlabeled.distributed import comm
from unlabeled.errors import ConfigError, DataError
from unlabeled.evaluation.attention_maps import cls_attention, enlarged, fitted, mass_masks
from unlabeled.evaluation.benchmarks.base import Benchmark, Probe
from unlabeled.evaluation.benchmarks.video_segmentation import UNKNOWN
from unlabeled.evaluation.mask_measures import region_similarity
from unlabeled.evaluation.token_features import require_tokens
from unlabeled.models.tokens import TokenBackbone
from unlabeled.registry import register


@register("benchmark", "attention_masks")
class AttentionMasks(Benchmark):
    """Overlap of the CLS token's attention with what is marked in an image, without any training.

    In every head of the last block, the patches of most attention that hold `mass` of it are a
    mask; it is compared with all objects of the image together by the Jaccard index, |mask and
    objects| / |mask or objects|. Metrics, in percent: iou, the mean over images of the head that
    fits each image best; iou_one_head, the head that is best on all images; iou_mean_head, the mean
    over heads. Pixels that the truth calls unknown do not count, nor do images without an object.
    DINO does not say which of the first two it reports. The head is chosen by the truth.
    Raises ConfigError for a backbone without tokens or larger patches than images, DataError for a
    data set without masks and an image that cannot be decoded. Under DDP the ranks share the
    images.
    Reference: Caron et al., DINO, arXiv:2104.14294, figure 4 and visualize_attention.py.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of `configs/benchmark/attention_masks.yaml`."""

        image_size: int = 480
        """Shorter side of the images, in pixels (DINO: 480), before they are cut to patches."""
        mass: float = 0.6
        """Share of a map's attention that a mask holds (DINO)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            yield from at_least(self, 1, "image_size")
            if not 0 < self.mass <= 1:
                yield "mass", f"must lie in (0, 1], got {self.mass}"

    config: Config

    @property
    def protocol(self) -> str:
        return (
            f"Jaccard index of {100 * self.config.mass:g} % of the attention of the CLS token in "
            f"the last block with all objects, shorter side {self.config.image_size}, best head of "
            "each image (DINO, arXiv:2104.14294, figure 4)"
        )

    def run(self, probe: Probe) -> dict[str, float]:
        source = probe.test
        if not isinstance(source, VideoSource) or not len(source):
            raise DataError("this benchmark compares with marked objects; give dataset=davis")
        backbone = require_tokens(probe.backbone, "benchmark")
        if self.config.image_size < backbone.patch:
            raise ConfigError(
                f"benchmark.image_size: {self.config.image_size} px are less than a patch of "
                f"{backbone.patch} px"
            )
        own, broken = [], []
        for index in range(comm.rank(), len(source), comm.world_size()):
            try:
                own += self.overlaps(probe, backbone, source, index)
            except BrokenImage as error:
                broken.append(f"{source.name(index)} ({error})")
        if faults := [fault for each in comm.all_gather_objects(broken) for fault in each]:
            raise DataError(f"{len(faults)} images cannot be decoded, the first is {faults[0]}")
        found = sorted(row for rows in comm.all_gather_objects(own) for row in rows)
        if not found:
            raise DataError("no image has a marked object to compare with")
        table = 100 * np.array([values for _, values in found])  # [N, heads]
        return {
            "iou": float(table.max(axis=1).mean()),
            "iou_one_head": float(table.mean(axis=0).max()),
            "iou_mean_head": float(table.mean()),
        }

    def overlaps(
        self, probe: Probe, backbone: TokenBackbone, source: VideoSource, index: int
    ) -> list[tuple[int, list[float]]]:
        """The image's place and the Jaccard index of every head; nothing for one without object."""
        side, patch = self.config.image_size, backbone.patch
        truth = np.array(
            fitted(Image.fromarray(source.mask(index)), side, patch, Image.Resampling.NEAREST)
        )
        known, objects = truth != UNKNOWN, (truth != UNKNOWN) & (truth > 0)
        if not objects.any():
            return []
        picture = fitted(
            Image.fromarray(source.image(index)), side, patch, Image.Resampling.BICUBIC
        )
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        with torch.no_grad():
            maps = cls_attention(backbone, probe.normalize(pixels.to(probe.device)))[0]
        masks = enlarged(mass_masks(maps, self.config.mass), patch).cpu().numpy()
        return [(index, [region_similarity(mask & known, objects) for mask in masks])]
