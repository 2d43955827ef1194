"""The training views: several random crops of an image at two or more resolutions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np

from unlabeled.config.ranges import at_least
from unlabeled.data.pixels.backends import Backend, renderer
from unlabeled.data.pixels.base import ViewPlan
from unlabeled.data.pixels.geometry import (
    Interpolation,
    crop_problems,
)
from unlabeled.data.pixels.recipe import Recipe, ViewRecipe
from unlabeled.data.randomness import SampleKey
from unlabeled.data.transforms.base import Operation, Pipeline
from unlabeled.data.transforms.color_jitter import ColorJitter
from unlabeled.data.transforms.gaussian_blur import GaussianBlur
from unlabeled.data.transforms.grayscale import Grayscale
from unlabeled.data.transforms.horizontal_flip import HorizontalFlip
from unlabeled.data.types import ViewSpec
from unlabeled.registry import Component, get, register


@dataclass(frozen=True, kw_only=True)
class CropGroup:
    """Crops that are drawn alike."""

    count: int
    """How many views."""
    size: int
    """Side of the views, in pixels."""
    scale: tuple[float, float]
    """Smallest and largest share of the image's area."""
    role: Literal["global", "local"]
    """Global views may serve for targets, local ones only predict them."""
    operations: list[Annotated[Component, "transform"]] | None = None
    """Operations of this group; null: those of the pipeline."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Faults in the values."""
        yield from at_least(self, 1, "count", "size")
        yield from crop_problems(self.scale, (1.0, 1.0))
        yield from _operation_problems(self.operations or [])


def _operation_problems(components: list[Component]) -> Iterator[tuple[str, str]]:
    for number, component in enumerate(components):
        if not issubclass(get("transform", component.name), Operation):
            yield (
                f"operations[{number}]",
                f"{component.name!r} is a pipeline of its own; operations are single steps, "
                "for example horizontal_flip",
            )


def _swav_crops() -> list[CropGroup]:
    return [
        CropGroup(count=2, size=224, scale=(0.14, 1.0), role="global"),
        CropGroup(count=6, size=96, scale=(0.05, 0.14), role="local"),
    ]


def _swav_operations() -> list[Component]:
    return [
        Component("transform", "horizontal_flip", HorizontalFlip.Config()),
        Component("transform", "color_jitter", ColorJitter.Config()),
        Component("transform", "grayscale", Grayscale.Config()),
        Component("transform", "gaussian_blur", GaussianBlur.Config()),
    ]


@register("transform", "multi_crop")
class MultiCrop(Pipeline):
    """V random resized crops of an image, each with its own flip, colour and blur.

    Per view: random resized crop (area share in `scale`, aspect ratio log-uniform in `ratio`), then
    the operations in their order. View v of a sample takes its uniforms from (seed, epoch, sample,
    v), so it depends on no other view, sample or process. Output: V arrays uint8 [3, size, size],
    in the order of the groups; normalisation happens on the device.
    Default: SwAV's 2 x 224 + 6 x 96. Reference: SwAV, sections 3.3 and 4 and appendix.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        crops: list[CropGroup] = field(default_factory=_swav_crops)
        """Groups of crops; groups of equal size must follow each other."""
        operations: list[Annotated[Component, "transform"]] = field(
            default_factory=_swav_operations
        )
        """What each crop goes through, for groups that name no operations of their own."""
        interpolation: Interpolation = "bilinear"
        """Resampling of the crops; both antialias (SwAV: bilinear, DINO: bicubic)."""
        ratio: tuple[float, float] = (0.75, 1.3333333333333333)
        """Smallest and largest width / height of a crop (torchvision: 3/4 and 4/3)."""
        backend: Backend = "auto"
        """Who makes the pixels: auto takes the fastest installed, reference is PIL."""

        def problems(self) -> Iterator[tuple[str, str]]:
            yield from _operation_problems(self.operations)
            yield from self._backend_problems()
            yield from crop_problems((1.0, 1.0), self.ratio)
            sizes = [group.size for group in self.crops]
            if not sizes:
                yield "crops", "must name at least one group"
            changes = 1 + sum(a != b for a, b in pairwise(sizes))
            if sizes and changes != len(set(sizes)):
                yield "crops", f"groups of equal size must follow each other, got sizes {sizes}"

        def _backend_problems(self) -> Iterator[tuple[str, str]]:
            groups = [group.operations for group in self.crops if group.operations is not None]
            if self.backend in ("auto", "reference"):
                return
            for component in sum(groups, self.operations):
                if get("transform", component.name).in_python:
                    yield (
                        "backend",
                        f"{self.backend!r} cannot run {component.name!r}, which works on PIL "
                        "images; take auto or reference",
                    )

    def __init__(self, config: Config) -> None:
        views: list[ViewRecipe] = []
        for group in config.crops:
            chosen = config.operations if group.operations is None else group.operations
            operations: tuple[Operation, ...] = tuple(component.build() for component in chosen)
            spec = ViewSpec(size=group.size, role=group.role)
            view = ViewRecipe(spec, group.scale, config.ratio, config.interpolation, operations)
            views += [view] * group.count
        self.recipe = Recipe(views)
        self.views = tuple(view.spec for view in views)
        self._renderer = renderer(config.backend, in_python=self.recipe.in_python)
        self.releases_gil = self._renderer.releases_gil
        if config.backend == "device":
            self.deferred_steps = self.recipe.max_steps

    def plan(self, width: int, height: int, key: SampleKey) -> list[ViewPlan]:
        """Every random decision about an image of this size; reads no pixel."""
        return self.recipe.plan(width, height, key)

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
        self._renderer.make(self.recipe, image, key, views, deferred)
