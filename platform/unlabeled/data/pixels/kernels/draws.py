"""The uniforms of a sample's views, as `data.randomness` defines them."""

from __future__ import annotations

import numpy as np

from unlabeled.data.pixels.kernels.kernel import inlined
from unlabeled.data.randomness import GAMMA, MULTIPLIER_1, MULTIPLIER_2

STEP = np.uint64(GAMMA)
FACTOR_1, FACTOR_2 = np.uint64(MULTIPLIER_1), np.uint64(MULTIPLIER_2)
SHIFT_1, SHIFT_2, SHIFT_3, SHIFT_OUT = (np.uint64(bits) for bits in (30, 27, 31, 11))


def draw(sample: int, out: np.ndarray) -> None:
    """Fill float64 [views, count] with the draws of every view; sample: the hash of its words."""
    views, count = out.shape
    for view in range(views):
        state = finalised((np.uint64(sample) ^ np.uint64(view)) + STEP)
        for k in range(count):
            state += STEP
            out[view, k] = float(finalised(state) >> SHIFT_OUT) * 2.0**-53


@inlined
def finalised(word: np.uint64) -> np.uint64:
    """The finaliser of splitmix64."""
    word = (word ^ (word >> SHIFT_1)) * FACTOR_1
    word = (word ^ (word >> SHIFT_2)) * FACTOR_2
    mixed: np.uint64 = word ^ (word >> SHIFT_3)
    return mixed
