"""The view that linear classifiers are trained on: one random crop, perhaps mirrored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unlabeled.config.ranges import at_least
from unlabeled.data.pixels.backends import renderer
from unlabeled.data.pixels.geometry import (
    Interpolation,
    crop_problems,
)
from unlabeled.data.pixels.recipe import Recipe, ViewRecipe
from unlabeled.data.randomness import SampleKey
from unlabeled.data.transforms.base import Pipeline
from unlabeled.data.transforms.horizontal_flip import HorizontalFlip
from unlabeled.data.transforms.probability import probability_problems
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
        backend: Literal["auto", "compiled", "portable", "reference"] = "reference"
        """Who makes the pixels; classifiers are trained on PIL's, as the published ones were."""

        def problems(self) -> Iterator[tuple[str, str]]:
            yield from at_least(self, 1, "size")
            yield from crop_problems(self.scale, self.ratio)
            for _, message in probability_problems(self.flip_p):
                yield "flip_p", message

    def __init__(self, config: Config) -> None:
        self.views = (ViewSpec(size=config.size, role="global"),)
        flip = HorizontalFlip(HorizontalFlip.Config(p=config.flip_p))
        view = ViewRecipe(self.views[0], config.scale, config.ratio, config.interpolation, (flip,))
        self._recipe = Recipe([view])
        self._renderer = renderer(config.backend, in_python=False)
        self.releases_gil = self._renderer.releases_gil

    def prepare(self) -> None:
        """Compile the kernels, where the backend has some."""
        self._renderer.prepare()

    def write(
        self,
        image: np.ndarray,
        key: SampleKey,
        views: Sequence[np.ndarray],
        deferred: Sequence[np.ndarray],
    ) -> None:
        self._renderer.make(self._recipe, image, key, views, deferred)
