"""Mirror an image left to right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from unlabeled.data.transforms.drawn import DrawnOperation, probability_problems
from unlabeled.registry import register


@register("transform", "horizontal_flip")
class HorizontalFlip(DrawnOperation[Literal[True]]):
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

    def parameters(self, uniforms: np.ndarray) -> Literal[True] | None:
        return True if uniforms[0] < self.p else None

    def apply(self, image: Image.Image, parameters: Literal[True]) -> Image.Image:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
