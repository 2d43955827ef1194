"""The view that linear classifiers are trained on: one random crop, perhaps mirrored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from unlabeled.data.randomness import uniforms
from unlabeled.data.transforms.base import Pipeline, SampleKey
from unlabeled.data.transforms.drawn import probability_problems
from unlabeled.data.transforms.geometry import (
    CROP_DRAWS,
    Interpolation,
    crop_problems,
    planar,
    random_crop_box,
    resized_crop,
)
from unlabeled.data.transforms.horizontal_flip import HorizontalFlip
from unlabeled.data.types import ViewSpec
from unlabeled.registry import register


@register("transform", "random_crop")
class RandomCrop(Pipeline):
    """One random resized crop, mirrored with probability `flip_p`: a view uint8 [3, size, size].

    Reference: torchvision's RandomResizedCrop + RandomHorizontalFlip; SwAV, eval_linear.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        size: int = 224
        """Side of the view, in pixels."""
        scale: tuple[float, float] = (0.08, 1.0)
        """Smallest and largest share of the image's area."""
        ratio: tuple[float, float] = (0.75, 1.3333333333333333)
        """Smallest and largest width / height of the crop (torchvision: 3/4 and 4/3)."""
        flip_p: float = 0.5
        """Probability of mirroring left to right."""
        interpolation: Interpolation = "bilinear"
        """Resampling; both antialias."""

        def problems(self) -> Iterator[tuple[str, str]]:
            if self.size < 1:
                yield "size", f"must be at least 1, got {self.size}"
            yield from crop_problems(self.scale, self.ratio)
            for _, message in probability_problems(self.flip_p):
                yield "flip_p", message

    def __init__(self, config: Config) -> None:
        self.config = config
        self._flip = HorizontalFlip(HorizontalFlip.Config(p=config.flip_p))
        self.views = (ViewSpec(size=config.size, role="global"),)

    def __call__(self, image: np.ndarray, key: SampleKey) -> list[np.ndarray]:
        """One view uint8 [3, size, size] of an RGB uint8 image [h, w, 3]."""
        picture = Image.fromarray(image)
        draws = uniforms(key, 0, CROP_DRAWS + self._flip.draws)
        box = random_crop_box(
            draws[:CROP_DRAWS], *picture.size, self.config.scale, self.config.ratio
        )
        view = resized_crop(picture, box, self.config.size, self.config.interpolation)
        return [planar(self._flip(view, draws[CROP_DRAWS:]))]
