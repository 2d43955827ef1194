"""Copies of what is smaller than sixteen by sixteen, with room around."""

from __future__ import annotations

import numpy as np

from unlabeled.data.pixels.kernels.kernel import kernel
from unlabeled.data.pixels.kernels.lanes import COUNT


@kernel
def box_with_margins(
    image: np.ndarray, at: int, pitch: int, width: int, height: int, copy: np.ndarray
) -> tuple[np.ndarray, int, int]:
    """A box of pixels as at least sixteen rows of sixteen bytes: a copy, its start and its pitch.

    What is made of the margins is never looked at; they are zero so that all is defined.
    """
    row_bytes = max(3 * width, COUNT)
    for y in range(max(height, COUNT)):
        for x in range(row_bytes):
            inside = y < height and x < 3 * width
            copy[y * row_bytes + x] = image[at + y * pitch + x] if inside else np.uint8(0)
    return copy, 0, row_bytes


@kernel
def with_margins(planes: np.ndarray, size: int, copy: np.ndarray) -> np.ndarray:
    """Planes [3, size, size] -> copy [3, 16, 16]."""
    for plane in range(3):
        for y in range(COUNT):
            for x in range(COUNT):
                inside = y < size and x < size
                value = planes[(plane * size + y) * size + x] if inside else np.uint8(0)
                copy[(plane * COUNT + y) * COUNT + x] = value
    return copy


@kernel
def without_margins(copy: np.ndarray, size: int, planes: np.ndarray) -> None:
    """Copy [3, 16, 16] -> planes [3, size, size]."""
    for plane in range(3):
        for y in range(size):
            for x in range(size):
                planes[(plane * size + y) * size + x] = copy[(plane * COUNT + y) * COUNT + x]
