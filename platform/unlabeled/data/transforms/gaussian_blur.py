"""Blur an image by a random amount."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unlabeled.data.pixels.base import Steps
from unlabeled.data.transforms.base import Operation
from unlabeled.data.transforms.probability import probability_problems
from unlabeled.registry import register


@register("transform", "gaussian_blur")
class GaussianBlur(Operation):
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

    draws = 2

    def __init__(self, config: Config) -> None:
        self.p = config.p
        self.low, self.high = config.min_sigma, config.max_sigma

    def steps(self, uniforms: Sequence[float]) -> Steps:
        if uniforms[0] >= self.p:
            return ()
        return (("gaussian_blur", self.low + uniforms[1] * (self.high - self.low)),)
