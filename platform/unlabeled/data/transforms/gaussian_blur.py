"""Blur an image by a random amount."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from unlabeled.data.pixels.chance import Chance, RandomStep
from unlabeled.data.transforms.base import ChanceOperation
from unlabeled.data.transforms.probability import probability_problems
from unlabeled.registry import register


@register("transform", "gaussian_blur")
class GaussianBlur(ChanceOperation):
    """With probability p, convolve with a Gaussian of sigma uniform in [min_sigma, max_sigma].

    Sigma counts pixels of the crop, whatever its size. PIL's filter: three box blurs that
    approximate the Gaussian of that standard deviation. SwAV's released weights were trained with
    OpenCV's 23 x 23 kernel instead, which differs by 0.4 grey levels on average.
    Reference: SwAV's code (use_pil_blur); SimCLR, appendix A.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        p: float = 0.5
        """Probability of acting (SwAV: 0.5)."""
        min_sigma: float = 0.1
        """Smallest standard deviation, in pixels."""
        max_sigma: float = 2.0
        """Largest standard deviation, in pixels."""

        def problems(self) -> Iterator[tuple[str, str]]:
            yield from probability_problems(self.p)
            if not 0 <= self.min_sigma <= self.max_sigma:
                yield (
                    "min_sigma",
                    f"must lie between 0 and max_sigma={self.max_sigma}, got {self.min_sigma}",
                )

    def __init__(self, config: Config) -> None:
        blur = RandomStep("gaussian_blur", config.min_sigma, config.max_sigma, number_from=1)
        super().__init__(Chance(config.p, draws=2, steps=(blur,)))
