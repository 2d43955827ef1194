"""Mirror a plane in place."""

from __future__ import annotations

import numpy as np

from unlabeled.data.pixels.kernels.kernel import kernel


@kernel
def mirror_columns(plane: np.ndarray, size: int) -> None:
    """Left to right: x'[i, j] = x[i, size - 1 - j]."""
    for start in range(0, size * size, size):
        for j in range(size // 2):
            left, right = start + j, start + size - 1 - j
            plane[left], plane[right] = plane[right], plane[left]


@kernel
def mirror_rows(plane: np.ndarray, size: int) -> None:
    """Top to bottom: x'[i, j] = x[size - 1 - i, j]."""
    for i in range(size // 2):
        upper, lower = i * size, (size - 1 - i) * size
        for j in range(size):
            plane[upper + j], plane[lower + j] = plane[lower + j], plane[upper + j]
