"""Operations in two halves: what is decided from uniform numbers, and what is done to the pixels.

The halves are separate so that another backend can take the same decisions for its own pixel work.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np
from PIL import Image

from unlabeled.data.transforms.base import Operation

P = TypeVar("P")


class DrawnOperation(Operation, Generic[P]):
    """An operation whose decision `parameters(uniforms)` is apart from its pixel work `apply`."""

    @abc.abstractmethod
    def parameters(self, uniforms: np.ndarray) -> P | None:
        """What to do, from uniforms [draws] in [0, 1); None leaves the image as it is."""

    @abc.abstractmethod
    def apply(self, image: Image.Image, parameters: P) -> Image.Image:
        """The changed RGB image."""

    def __call__(self, image: Image.Image, uniforms: np.ndarray) -> Image.Image:
        """Decide, then do."""
        parameters = self.parameters(uniforms)
        return image if parameters is None else self.apply(image, parameters)


def probability_problems(p: float) -> Iterator[tuple[str, str]]:
    """Faults of the probability `p` with which an operation acts."""
    if not 0 <= p <= 1:
        yield "p", f"must be a probability in [0, 1], got {p}"
