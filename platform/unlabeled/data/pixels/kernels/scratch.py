"""Memory that a thread works in, kept from image to image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from unlabeled.data.pixels.kernels.lanes import COUNT
from unlabeled.data.pixels.kernels.line_filter import BAND, GROUPS


class Scratch(NamedTuple):
    """What the kernels fill before they read it; its contents mean nothing between two views."""

    first_x: np.ndarray
    """int64: where each output column's weights begin; first_y: where each row's do."""
    first_y: np.ndarray
    weights_x: np.ndarray
    """int32, as are weights_y; shares: float64, what they are rounded from."""
    weights_y: np.ndarray
    shares: np.ndarray
    columns: np.ndarray
    """uint8, as are all below: rows that are turned, so that their columns lie together."""
    results: np.ndarray
    """Filtered columns."""
    rows: np.ndarray
    """The image after the first axis."""
    margins: np.ndarray
    """A small box or view, extended to sixteen rows of sixteen bytes."""


def scratch_for(width: int, height: int, size: int) -> Scratch:
    """Enough for every view of at most size x size pixels from an image of at most width x height.

    Nothing is touched here: memory that no view needs is never taken from the system.
    """
    line = max(size, COUNT)
    longest = max(width, height, line)
    # A bicubic filter has at most ceil(4 max(length / size, 1)) + 1 taps.
    weights = 4 * longest + 2 * size
    return Scratch(
        first_x=np.empty(size, np.int64),
        first_y=np.empty(size, np.int64),
        weights_x=np.empty(weights, np.int32),
        weights_y=np.empty(weights, np.int32),
        shares=np.empty(weights + size, np.float64),
        columns=np.empty(BAND * longest, np.uint8),
        results=np.empty(BAND * line, np.uint8),
        rows=np.empty(GROUPS * line * longest, np.uint8),
        margins=np.empty(BAND * longest, np.uint8),
    )
