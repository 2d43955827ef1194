"""Turn an image upside down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unlabeled.data.pixels.chance import Chance, RandomStep
from unlabeled.data.transforms.base import ChanceOperation
from unlabeled.data.transforms.probability import probability_problems
from unlabeled.registry import register


@register("transform", "vertical_flip")
class VerticalFlip(ChanceOperation):
    """Mirror top to bottom with probability p: x'[i, j] = x[h - 1 - i, j]. Any image size.

    For pictures without an up and a down: textures, microscopy, pictures from above.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        p: float = 0.5
        """Probability of acting."""

        def problems(self) -> Iterator[tuple[str, str]]:
            return probability_problems(self.p)

    def __init__(self, config: Config) -> None:
        super().__init__(Chance(config.p, draws=1, steps=(RandomStep("vertical_flip"),)))
