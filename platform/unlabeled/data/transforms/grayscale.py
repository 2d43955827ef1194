"""Take the colour out of an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unlabeled.data.pixels.chance import Chance, RandomStep
from unlabeled.data.transforms.base import ChanceOperation
from unlabeled.data.transforms.probability import probability_problems
from unlabeled.registry import register


@register("transform", "grayscale")
class Grayscale(ChanceOperation):
    """With probability p, all channels become the luma 0.299 R + 0.587 G + 0.114 B (ITU-R 601).

    Reference: SwAV, appendix; SimCLR, appendix A.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        p: float = 0.2
        """Probability of acting (SwAV and SimCLR: 0.2)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            return probability_problems(self.p)

    def __init__(self, config: Config) -> None:
        super().__init__(Chance(config.p, draws=1, steps=(RandomStep("grayscale"),)))
