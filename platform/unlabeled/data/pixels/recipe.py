"""How the views of an image come about: crops, and what each of them goes through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import NamedTuple, Protocol

import numpy as np

from unlabeled.data.pixels.base import Steps, ViewPlan
from unlabeled.data.pixels.chance import Chance
from unlabeled.data.pixels.geometry import CROP_DRAWS, Interpolation, random_crop_box
from unlabeled.data.pixels.table import CODES
from unlabeled.data.randomness import SampleKey, view_uniforms
from unlabeled.data.types import ViewSpec


class Deciding(Protocol):
    """What a recipe needs of an operation."""

    @property
    def draws(self) -> int: ...
    @property
    def max_steps(self) -> int: ...
    @property
    def in_python(self) -> bool: ...
    @property
    def chance(self) -> Chance | None: ...

    def steps(self, uniforms: Sequence[float]) -> Steps: ...


@dataclass(frozen=True)
class ViewRecipe:
    """A random resized crop and the operations behind it, each with uniforms of its own."""

    spec: ViewSpec
    scale: tuple[float, float]
    ratio: tuple[float, float]
    interpolation: Interpolation
    operations: tuple[Deciding, ...]

    @cached_property
    def parts(self) -> tuple[slice, ...]:
        """Which of the view's uniforms each operation gets; the crop has the first ones."""
        ends = accumulate((one.draws for one in self.operations), initial=CROP_DRAWS)
        return tuple(slice(start, end) for start, end in pairwise(ends))

    @property
    def draws(self) -> int:
        """Uniforms of the view."""
        return self.parts[-1].stop if self.parts else CROP_DRAWS

    @property
    def max_steps(self) -> int:
        """At most so many steps are done to the view."""
        return sum(operation.max_steps for operation in self.operations)


class Tables(NamedTuple):
    """A recipe in numbers, float64, as `kernels.plan.plan` takes it."""

    views: np.ndarray
    """[V, 10]: scale; ratio and its logarithms; size; whether bicubic; first chance, end of them"""
    chances: np.ndarray
    """[C, 4]: p; first uniform; first step, end of the steps"""
    steps: np.ndarray
    """[S, 6]: code; low; high; number_from and sorted_by (-1: None); grid"""


class Recipe:
    """The views of an image: a pure function of its size and the sample's key."""

    def __init__(self, views: Sequence[ViewRecipe]) -> None:
        self.views = tuple(views)
        self.draws = max(view.draws for view in self.views)
        self.max_steps = max(view.max_steps for view in self.views)
        self.largest = max(view.spec.size for view in self.views)
        self.in_python = any(one.in_python for view in self.views for one in view.operations)
        self.all_steps = sum(view.max_steps for view in self.views)

    def plan(self, width: int, height: int, key: SampleKey) -> list[ViewPlan]:
        """Every random decision about an image of this size; reads no pixel."""
        plans = []
        drawn = view_uniforms(key, len(self.views), self.draws)
        for view, uniforms in zip(self.views, drawn, strict=True):
            box = random_crop_box(uniforms, width, height, view.scale, view.ratio)
            steps: Steps = ()
            for operation, part in zip(view.operations, view.parts, strict=True):
                steps += operation.steps(uniforms[part])
            plans.append(ViewPlan(view.spec, box, view.interpolation, steps))
        return plans

    @cached_property
    def tables(self) -> Tables | None:
        """For the compiled planner; None if an operation decides in Python."""
        views: list[tuple[float, ...]] = []
        chances: list[tuple[float, ...]] = []
        steps: list[tuple[float, ...]] = []
        for view in self.views:
            first = len(chances)
            for operation, part in zip(view.operations, view.parts, strict=True):
                if operation.chance is None:
                    return None
                start = len(steps)
                steps += _step_rows(operation.chance)
                chances.append((operation.chance.p, part.start, start, len(steps)))
            logarithms = math.log(view.ratio[0]), math.log(view.ratio[1])
            bicubic = view.interpolation == "bicubic"
            row = (*view.scale, *view.ratio, *logarithms, view.spec.size, bicubic)
            views.append((*row, first, len(chances)))
        return Tables(
            np.array(views, np.float64),
            np.array(chances, np.float64).reshape(-1, 4),
            np.array(steps, np.float64).reshape(-1, 6),
        )


def _step_rows(chance: Chance) -> list[tuple[float, ...]]:
    return [
        (
            *(CODES[step.name], step.low, step.high),
            -1 if step.number_from is None else step.number_from,
            -1 if step.sorted_by is None else step.sorted_by,
            step.grid,
        )
        for step in chance.steps
    ]
