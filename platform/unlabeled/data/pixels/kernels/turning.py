"""Rows and columns of pixels change places, sixteen by sixteen.

What filters a line of pixels works on sixteen lines at once. Going down a plane, those are sixteen
adjacent columns, and need nothing. Going along its rows, the sixteen rows are turned first, so that
their pixels of one column lie side by side; no pixel is ever picked from a vector by itself.
"""

from __future__ import annotations

import numpy as np

from unlabeled.data.pixels.kernels.kernel import kernel
from unlabeled.data.pixels.kernels.lanes import COUNT, transpose


@kernel
def turn(source: np.ndarray, at: int, pitch: int, length: int, columns: np.ndarray) -> None:
    """Sixteen rows, `pitch` apart, of at least sixteen bytes -> columns [length, 16], flat."""
    for x in range(0, length, COUNT):
        left = min(x, length - COUNT)
        transpose(source, at + left, pitch, columns, left * COUNT, np.int64(COUNT))


@kernel
def turn_back(
    columns: np.ndarray, at: int, stride: int, length: int, rows: np.ndarray, to: int, pitch: int
) -> None:
    """Columns of sixteen bytes, `stride` apart -> sixteen rows of `length` >= 16, `pitch` apart."""
    for x in range(0, length, COUNT):
        left = min(x, length - COUNT)
        transpose(columns, at + left * stride, stride, rows, to + left, pitch)
