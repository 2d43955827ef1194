"""Change brightness, contrast, saturation and hue by random amounts, in random order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unlabeled.config.ranges import at_least
from unlabeled.data.pixels.chance import Chance, RandomStep
from unlabeled.data.transforms.base import ChanceOperation
from unlabeled.data.transforms.probability import probability_problems
from unlabeled.registry import register

PROPERTIES = ("brightness", "contrast", "saturation", "hue")
GRID = 8192
"""Blending factors are multiples of 1/8192: 16-bit integers can then do what PIL does in floats."""


@register("transform", "color_jitter")
class ColorJitter(ChanceOperation):
    """With probability p, change four colour properties one after another, in a random order.

    Brightness, contrast and saturation blend with black, with the image's mean grey and with its
    grey version: x' = (1 - f) * other + f * x, clipped to 0..255 and truncated to uint8 after each,
    f uniform in [max(0, 1 - strength), 1 + strength] and rounded to a multiple of 1/8192. Hue turns
    by a share of the full circle that is uniform in [-hue, hue], in PIL's 8-bit HSV. A strength of
    0 leaves a property out.
    Bit-equal to torchvision's ColorJitter on PIL images with the same order and factors.
    Reference: SwAV's code (0.8, 0.8, 0.8, 0.2 with p = 0.8); SimCLR, appendix A (strength 1).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        p: float = 0.8
        """Probability of acting at all (SwAV: 0.8)."""
        brightness: float = 0.8
        """Half width of the interval of brightness factors around 1."""
        contrast: float = 0.8
        """Half width of the interval of contrast factors around 1."""
        saturation: float = 0.8
        """Half width of the interval of saturation factors around 1."""
        hue: float = 0.2
        """Largest hue shift, as a share of the full circle (at most 0.5)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            yield from probability_problems(self.p)
            yield from at_least(self, 0, "brightness", "contrast", "saturation")
            if not 0 <= self.hue <= 0.5:
                yield "hue", f"must lie in [0, 0.5] (half the circle), got {self.hue}"

    def __init__(self, config: Config) -> None:
        strengths = (config.brightness, config.contrast, config.saturation)
        ranges = [(max(0.0, 1 - strength), 1 + strength, GRID) for strength in strengths]
        ranges.append((-config.hue, config.hue, 0))
        steps = tuple(
            # Sorting by four independent uniforms makes all 24 orders equally likely.
            RandomStep(name, low, high, number_from=5 + k, grid=grid, sorted_by=1 + k)
            for k, (name, (low, high, grid)) in enumerate(zip(PROPERTIES, ranges, strict=True))
            if low < high
        )
        super().__init__(Chance(config.p, draws=9, steps=steps))
