"""The luma of colours: PIL's grey, 0.299 R + 0.587 G + 0.114 B in fixed point."""

from __future__ import annotations

import numpy as np

from unlabeled.data.pixels.kernels.kernel import inlined, kernel
from unlabeled.data.pixels.kernels.typed import add, multiply, shift_right

RED, GREEN, BLUE = np.int32(19595), np.int32(38470), np.int32(7471)  # of 65536, their sum
HALF, BITS = np.int32(1 << 15), np.int32(16)


@inlined
def luma(red: np.uint8, green: np.uint8, blue: np.uint8) -> np.int32:
    """(19595 R + 38470 G + 7471 B + 2^15) // 2^16, as PIL's conversion to mode L; 0..255."""
    warm = add(multiply(np.int32(red), RED), multiply(np.int32(green), GREEN))
    total = add(warm, add(multiply(np.int32(blue), BLUE), HALF))
    grey: np.int32 = shift_right(total, BITS)
    return grey


@kernel
def luma_sum(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.int32:
    """The sum over a tile; below 2^31 for up to 2^23 pixels."""
    total: np.int32 = np.int32(0)
    for i in range(len(red)):
        total = add(total, luma(red[i], green[i], blue[i]))
    return total


@kernel
def grayscale(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> None:
    """All three channels become the luma."""
    for i in range(len(red)):
        grey = np.uint8(luma(red[i], green[i], blue[i]))
        red[i] = grey
        green[i] = grey
        blue[i] = grey
