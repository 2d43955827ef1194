"""A training view of nearly the whole image: its middle, shifted a little and perhaps mirrored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from unlabeled.config.ranges import at_least
from unlabeled.data.pixels.geometry import RESAMPLING, Interpolation, planar, shorter_side_resized
from unlabeled.data.randomness import SampleKey, uniforms
from unlabeled.data.transforms.base import Pipeline
from unlabeled.data.transforms.probability import probability_problems
from unlabeled.data.types import ViewSpec
from unlabeled.registry import register


@register("transform", "shifted_crop")
class ShiftedCrop(Pipeline):
    """A window of size x size at a random place in the central square of side `resize`.

    The shorter side is resized to `resize` pixels and the central square is cut; of the
    (resize - size + 1)^2 places in it all are equally likely; the window is mirrored with
    probability flip_p. One view uint8 [3, size, size], a pure function of the sample's key.
    Reference: torchvision's Resize, CenterCrop, RandomCrop and RandomHorizontalFlip; DeepCluster's
    eval_linear, 256 and 224.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        size: int = 224
        """Side of the view, in pixels."""
        resize: int = 256
        """Length of the shorter side, and side of the square that the view is cut from."""
        flip_p: float = 0.5
        """Probability of mirroring left to right."""
        interpolation: Interpolation = "bilinear"
        """Resampling; both antialias."""

        def problems(self) -> Iterator[tuple[str, str]]:
            yield from at_least(self, 1, "size")
            if self.resize < self.size:
                yield "resize", f"must be at least size={self.size}, got {self.resize}"
            for _, message in probability_problems(self.flip_p):
                yield "flip_p", message

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
        size, resize = self.config.size, self.config.resize
        resampling = RESAMPLING[self.config.interpolation]
        picture = shorter_side_resized(Image.fromarray(image), resize, resampling)
        across, down, mirror = uniforms(key, 0, 3)
        places = resize - size + 1
        left = round((picture.width - resize) / 2) + int(across * places)
        top = round((picture.height - resize) / 2) + int(down * places)
        pixels = planar(picture.crop((left, top, left + size, top + size)))  # [3, size, size]
        views[0][...] = pixels[:, :, ::-1] if mirror < self.config.flip_p else pixels
