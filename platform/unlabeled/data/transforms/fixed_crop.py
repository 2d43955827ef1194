"""An evaluation view that shows one part of the image: the middle or a corner, perhaps mirrored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from unlabeled.config.ranges import at_least
from unlabeled.data.pixels.geometry import RESAMPLING, Interpolation, planar, shorter_side_resized
from unlabeled.data.randomness import SampleKey
from unlabeled.data.transforms.base import Pipeline
from unlabeled.data.types import ViewSpec
from unlabeled.registry import register

Place = Literal["center", "top_left", "top_right", "bottom_left", "bottom_right"]


@register("transform", "fixed_crop")
class FixedCrop(Pipeline):
    """Resize the shorter side to `resize` pixels, then cut size x size at a fixed place.

    One view uint8 [3, size, size]; nothing is random. The five places and their mirror images are
    torchvision's TenCrop, bit by bit, on PIL images.
    Reference: Krizhevsky et al. 2012, section 4.1; DeepCluster's eval_linear, resize 256, crop 224.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        size: int = 224
        """Side of the view, in pixels."""
        resize: int = 256
        """Length of the shorter side before cutting."""
        place: Place = "center"
        """Where the view is cut out of the image."""
        mirrored: bool = False
        """Mirror the view left to right."""
        interpolation: Interpolation = "bilinear"
        """Resampling; both antialias."""

        def problems(self) -> Iterator[tuple[str, str]]:
            yield from at_least(self, 1, "size")
            if self.resize < self.size:
                yield "resize", f"must be at least size={self.size}, got {self.resize}"

    releases_gil = True  # decoding and resizing do, and the rest is short

    def __init__(self, config: Config) -> None:
        self.config = config
        self.views = (ViewSpec(size=config.size, role="global"),)

    def write(
        self,
        image: np.ndarray,
        key: SampleKey,
        views: Sequence[np.ndarray],
        deferred: Sequence[np.ndarray],
    ) -> None:
        size, place = self.config.size, self.config.place
        resampling = RESAMPLING[self.config.interpolation]
        picture = shorter_side_resized(Image.fromarray(image), self.config.resize, resampling)
        right, bottom = (side - size for side in picture.size)
        left, top = round(right / 2), round(bottom / 2)
        if place != "center":
            left = right if place.endswith("right") else 0
            top = bottom if place.startswith("bottom") else 0
        pixels = planar(picture.crop((left, top, left + size, top + size)))  # [3, size, size]
        views[0][...] = pixels[:, :, ::-1] if self.config.mirrored else pixels
