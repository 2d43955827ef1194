"""Random steps as data: what may happen to a view, and how uniform numbers decide about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unlabeled.data.pixels.base import Step


@dataclass(frozen=True)
class RandomStep:
    """An elementary step and where its number comes from."""

    name: str
    """One of `base.STEPS`."""
    low: float = 0.0
    high: float = 0.0
    """The number is uniform in [low, high]; without `number_from` it is `low`."""
    number_from: int | None = None
    """Which uniform gives the number."""
    grid: int = 0
    """The number is rounded to a multiple of 1/grid; 0: it is not."""
    sorted_by: int | None = None
    """Steps are done in the order of these uniforms; None: where they stand."""

    def number(self, uniforms: Sequence[float]) -> float:
        """What these uniforms make of it."""
        if self.number_from is None:
            return self.low
        number = self.low + uniforms[self.number_from] * (self.high - self.low)
        return round(number * self.grid) / self.grid if self.grid else number

    def key(self, uniforms: Sequence[float]) -> float:
        """What it is sorted by."""
        return 0.0 if self.sorted_by is None else uniforms[self.sorted_by]


@dataclass(frozen=True)
class Chance:
    """With probability p all of the steps, otherwise none.

    Consumes `draws` uniforms, whatever comes of them: the first decides, the others are those that
    the steps name. `kernels/plan.py` does the same in compiled code.
    """

    p: float
    draws: int
    steps: tuple[RandomStep, ...]

    def decide(self, uniforms: Sequence[float]) -> tuple[Step, ...]:
        """The steps to do."""
        if uniforms[0] >= self.p:
            return ()
        in_order = sorted(self.steps, key=lambda step: step.key(uniforms))
        return tuple((step.name, step.number(uniforms)) for step in in_order)
