"""Take the colour out of an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from unlabeled.data.transforms.drawn import DrawnOperation, probability_problems
from unlabeled.registry import register


@register("transform", "grayscale")
class Grayscale(DrawnOperation[Literal[True]]):
    """With probability p, all channels become the luma 0.299 R + 0.587 G + 0.114 B (ITU-R 601).

    Reference: SwAV, appendix; SimCLR, appendix A.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        p: float = 0.2
        """Probability of acting (SwAV and SimCLR: 0.2)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            return probability_problems(self.p)

    draws = 1

    def __init__(self, config: Config) -> None:
        self.p = config.p

    def parameters(self, uniforms: np.ndarray) -> Literal[True] | None:
        return True if uniforms[0] < self.p else None

    def apply(self, image: Image.Image, parameters: Literal[True]) -> Image.Image:
        return image.convert("L").convert("RGB")
