"""Mirror an image left to right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unlabeled.data.pixels.base import Steps
from unlabeled.data.transforms.base import Operation
from unlabeled.data.transforms.probability import probability_problems
from unlabeled.registry import register


@register("transform", "horizontal_flip")
class HorizontalFlip(Operation):
    """Mirror left to right with probability p: x'[i, j] = x[i, w - 1 - j]. Any image size."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        p: float = 0.5
        """Probability of acting."""

        def problems(self) -> Iterator[tuple[str, str]]:
            return probability_problems(self.p)

    draws = 1

    def __init__(self, config: Config) -> None:
        self.p = config.p

    def steps(self, uniforms: Sequence[float]) -> Steps:
        return (("horizontal_flip", 0.0),) if uniforms[0] < self.p else ()
