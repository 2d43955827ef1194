"""The view that linear classifiers are trained on: one random crop, perhaps mirrored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unlabeled.data.pixels.backends import renderer
from unlabeled.data.pixels.base import ViewPlan
from unlabeled.data.pixels.geometry import (
    CROP_DRAWS,
    Interpolation,
    crop_problems,
    random_crop_box,
)
from unlabeled.data.randomness import SampleKey, uniforms
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
            if self.size < 1:
                yield "size", f"must be at least 1, got {self.size}"
            yield from crop_problems(self.scale, self.ratio)
            for _, message in probability_problems(self.flip_p):
                yield "flip_p", message

    def __init__(self, config: Config) -> None:
        self.config = config
        self._flip = HorizontalFlip(HorizontalFlip.Config(p=config.flip_p))
        self._render = renderer(config.backend, in_python=False)
        self.releases_gil = self._render.releases_gil
        self.views = (ViewSpec(size=config.size, role="global"),)

    def prepare(self) -> None:
        """Compile the kernels, where the backend has some."""
        self._render.prepare()

    def write(
        self,
        image: np.ndarray,
        key: SampleKey,
        views: Sequence[np.ndarray],
        deferred: Sequence[np.ndarray],
    ) -> None:
        draws = uniforms(key, 0, CROP_DRAWS + self._flip.draws).tolist()
        height, width = image.shape[:2]
        box = random_crop_box(
            draws[:CROP_DRAWS], width, height, self.config.scale, self.config.ratio
        )
        steps = self._flip.steps(draws[CROP_DRAWS:])
        self._render(image, [ViewPlan(self.views[0], box, self.config.interpolation, steps)], views)
