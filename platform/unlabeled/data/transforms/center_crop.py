"""The evaluation view: the middle of the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from unlabeled.config.ranges import at_least
from unlabeled.data.pixels.geometry import RESAMPLING, Interpolation, planar, shorter_side_resized
from unlabeled.data.randomness import SampleKey
from unlabeled.data.transforms.base import Pipeline
from unlabeled.data.types import ViewSpec
from unlabeled.registry import register


@register("transform", "center_crop")
class CenterCrop(Pipeline):
    """Resize the shorter side to `resize` pixels, then cut the central size x size.

    One view uint8 [3, size, size]; nothing is random. Bit-equal to torchvision's Resize and
    CenterCrop on PIL images.
    Reference: the usual protocol on ImageNet, resize 256 and crop 224 (SwAV, eval_linear).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        size: int = 224
        """Side of the view, in pixels."""
        resize: int | None = 256
        """Length of the shorter side before cutting; null: `size`, so only the long side is cut."""
        interpolation: Interpolation = "bilinear"
        """Resampling; both antialias (SwAV: bilinear, DINO: bicubic)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            yield from at_least(self, 1, "size")
            if self.resize is not None and self.resize < self.size:
                yield "resize", f"must be at least size={self.size} or null, got {self.resize}"

    releases_gil = True  # decoding and resizing do, and the rest is short

    def __init__(self, config: Config) -> None:
        self.size = config.size
        self.resize = config.size if config.resize is None else config.resize
        self.interpolation = config.interpolation
        self.views = (ViewSpec(size=config.size, role="global"),)

    def write(
        self,
        image: np.ndarray,
        key: SampleKey,
        views: Sequence[np.ndarray],
        deferred: Sequence[np.ndarray],
    ) -> None:
        resampling = RESAMPLING[self.interpolation]
        picture = shorter_side_resized(Image.fromarray(image), self.resize, resampling)
        left, top = (round((side - self.size) / 2) for side in picture.size)
        views[0][...] = planar(picture.crop((left, top, left + self.size, top + self.size)))
