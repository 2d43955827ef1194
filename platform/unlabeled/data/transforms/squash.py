"""An evaluation view that shows the whole image, whatever its proportions."""

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


@register("transform", "squash")
class Squash(Pipeline):
    """Resize the shorter side to `resize` pixels, then the whole to size x size.

    One view uint8 [3, size, size]; nothing is cut off and nothing is random. Bit-equal to
    torchvision's Resize(resize) and Resize((size, size)) on PIL images.
    Reference: VISSL, eval_resnet_8gpu_transfer_voc07_svm, resize 256 and then 224 x 224.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        size: int = 224
        """Side of the view, in pixels."""
        resize: int | None = 256
        """Length of the shorter side before squashing; null: one resize, straight to the view."""
        interpolation: Interpolation = "bilinear"
        """Resampling, of both; antialiased."""

        def problems(self) -> Iterator[tuple[str, str]]:
            yield from at_least(self, 1, "size", "resize")

    releases_gil = True  # decoding and resizing do, and the rest is short

    def __init__(self, config: Config) -> None:
        self.size, self.resize = config.size, config.resize
        self.resampling = RESAMPLING[config.interpolation]
        self.views = (ViewSpec(size=config.size, role="global"),)

    def write(
        self,
        image: np.ndarray,
        key: SampleKey,
        views: Sequence[np.ndarray],
        deferred: Sequence[np.ndarray],
    ) -> None:
        picture = Image.fromarray(image)
        if self.resize is not None:
            picture = shorter_side_resized(picture, self.resize, self.resampling)
        views[0][...] = planar(picture.resize((self.size, self.size), self.resampling))
