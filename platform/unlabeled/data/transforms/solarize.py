"""Invert the bright pixels of an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unlabeled.data.pixels.chance import Chance, RandomStep
from unlabeled.data.transforms.base import ChanceOperation
from unlabeled.data.transforms.probability import probability_problems
from unlabeled.registry import register


@register("transform", "solarize")
class Solarize(ChanceOperation):
    """With probability p, x' = 255 - x where x >= threshold, per channel.

    Not part of SwAV's augmentations; DINO and BYOL use it on their second global crop (p = 0.2).
    Reference: BYOL, appendix B.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        p: float = 0.2
        """Probability of acting (BYOL and DINO, second global crop: 0.2)."""
        threshold: int = 128
        """Grey level from which on values are inverted, of 255."""

        def problems(self) -> Iterator[tuple[str, str]]:
            yield from probability_problems(self.p)
            if not 0 <= self.threshold <= 256:
                yield "threshold", f"must lie in 0..256 (256 inverts nothing), got {self.threshold}"

    def __init__(self, config: Config) -> None:
        super().__init__(
            Chance(config.p, draws=1, steps=(RandomStep("solarize", low=config.threshold),))
        )
