"""Weighted sums of pixels along one axis, in PIL's arithmetic: what a resize consists of.

48 adjacent numbers, as three times sixteen, are worked on at once: horizontally, the same sixteen
rows of three channels (`turning.py`); vertically, 48 columns. The sums are of int32: bytes times
weights of 22 fraction bits, one half, no overflow, as weights exceed one only by a little; then
they are cut to bytes and clipped.
"""

from __future__ import annotations

import numpy as np

from unlabeled.data.pixels.kernels.kernel import kernel
from unlabeled.data.pixels.kernels.lanes import (
    COUNT,
    clipped,
    filled,
    item,
    load,
    plus,
    store,
    times,
    widened,
)

WEIGHT_BITS = 22  # PIL's: 32 bits less 8 of a pixel and 2 of sign and overshoot
HALF = np.int32(1 << (WEIGHT_BITS - 1))
GROUPS = 3
BAND = GROUPS * COUNT

LineFilter = tuple[np.ndarray, np.ndarray, int]
"""first int64 [n], weights int32 [n * taps], taps:

output i is sum_k weights[i * taps + k] / 2^22 * line[first[i] + k] over k < taps.
"""


@kernel
def weigh_columns(
    columns: np.ndarray, line_filter: LineFilter, mirrored: bool, results: np.ndarray
) -> None:
    """Along rows: columns [*, BAND] -> results [n, BAND], flat; mirrored: the last column first."""
    first, weights, taps = line_filter
    size = len(first)
    for i in range(size):
        at = first[i] * BAND
        sum_0 = sum_1 = sum_2 = filled(HALF)
        for k in range(i * taps, (i + 1) * taps):
            weight = item(weights, k)
            sum_0 = plus(sum_0, times(widened(load(columns, at)), weight))
            sum_1 = plus(sum_1, times(widened(load(columns, at + COUNT)), weight))
            sum_2 = plus(sum_2, times(widened(load(columns, at + 2 * COUNT)), weight))
            at += BAND
        to = (size - 1 - i if mirrored else i) * BAND
        store(results, to, clipped(sum_0, WEIGHT_BITS))
        store(results, to + COUNT, clipped(sum_1, WEIGHT_BITS))
        store(results, to + 2 * COUNT, clipped(sum_2, WEIGHT_BITS))


@kernel
def weigh_rows(
    rows: np.ndarray,
    at: int,
    pitch: int,
    length: int,
    line_filter: LineFilter,
    out: np.ndarray,
    to: int,
    out_pitch: int,
) -> None:
    """Down columns: rows of at least sixteen bytes, `pitch` apart -> n rows, `out_pitch` apart."""
    first, weights, taps = line_filter
    last = length - COUNT
    for i in range(len(first)):
        for x in range(0, length, BAND):
            # Groups that would lie past the end of the row repeat its last sixteen.
            x_0, x_1, x_2 = min(x, last), min(x + COUNT, last), min(x + 2 * COUNT, last)
            row = at + first[i] * pitch
            sum_0 = sum_1 = sum_2 = filled(HALF)
            for k in range(i * taps, (i + 1) * taps):
                weight = item(weights, k)
                sum_0 = plus(sum_0, times(widened(load(rows, row + x_0)), weight))
                sum_1 = plus(sum_1, times(widened(load(rows, row + x_1)), weight))
                sum_2 = plus(sum_2, times(widened(load(rows, row + x_2)), weight))
                row += pitch
            row_out = to + i * out_pitch
            store(out, row_out + x_0, clipped(sum_0, WEIGHT_BITS))
            store(out, row_out + x_1, clipped(sum_1, WEIGHT_BITS))
            store(out, row_out + x_2, clipped(sum_2, WEIGHT_BITS))
