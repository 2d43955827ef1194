"""Which pixels an antialiased resize looks at, and how much each of them counts: PIL's numbers."""

from __future__ import annotations

import numpy as np

from unlabeled.data.pixels.kernels.kernel import inlined, kernel
from unlabeled.data.pixels.kernels.line_filter import WEIGHT_BITS

CUBIC = -0.5  # the free parameter of PIL's bicubic filter (Keys 1981)


@kernel
def filter_weights(
    length: int, bicubic: bool, first: np.ndarray, weights: np.ndarray, shares: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """The `line_filter.LineFilter` from a line of `length` to one of len(first); int32 weights.

    Output i is centred on (i + 1/2) * length / size; the filter function is stretched by that
    factor when shrinking. The weights, of 22 fraction bits, are normalised in float64 and rounded,
    all as in PIL, so that the sums are PIL's to the bit. shares: float64 [(taps + 1) * size] to
    work in. Outputs are the inner loop everywhere, as a vector unit likes it: taps are few.
    """
    size = len(first)
    scale = length / size
    stretch = max(scale, 1.0)
    shrink = 1.0 / stretch
    reach = stretch * (2.0 if bicubic else 1.0)
    taps = most_taps(length, size, reach)
    totals = shares[taps * size : (taps + 1) * size]
    for i in range(size):
        low, _ = window((i + 0.5) * scale, reach, length)
        # All have as many taps, within the line: those too many have weight 0.
        first[i] = min(low, length - taps)
        totals[i] = 0.0
    for k in range(taps):
        for i in range(size):
            center, place = (i + 0.5) * scale, first[i] + k
            low, high = window(center, reach, length)
            share = filter_at((place - center + 0.5) * shrink, bicubic)
            share = share if low <= place < high else 0.0
            shares[k * size + i] = share
            totals[i] += share
    for k in range(taps):
        for i in range(size):
            share = shares[k * size + i] / totals[i] * (1 << WEIGHT_BITS)
            weights[i * taps + k] = int(share - 0.5) if share < 0 else int(share + 0.5)
    return first, weights, taps


@inlined
def window(center: float, reach: float, length: int) -> tuple[int, int]:
    """The pixels within reach of a centre, as PIL rounds: the first, and the one after the last."""
    return max(int(center - reach + 0.5), 0), min(int(center + reach + 0.5), length)


@kernel
def most_taps(length: int, size: int, reach: float) -> int:
    """The widest window of all outputs."""
    taps = 1
    for i in range(size):
        low, high = window((i + 0.5) * (length / size), reach, length)
        taps = max(taps, high - low)
    return taps


@inlined
def filter_at(distance: float, bicubic: bool) -> float:
    """The triangle 1 - |x|, or Keys' cubic, which is negative between 1 and 2."""
    x = abs(distance)
    if not bicubic:
        return 1.0 - x if x < 1.0 else 0.0
    if x < 1.0:
        return ((CUBIC + 2.0) * x - (CUBIC + 3.0)) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * CUBIC
    return 0.0
