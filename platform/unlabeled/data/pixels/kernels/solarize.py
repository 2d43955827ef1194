"""Invert the bright pixels of a channel."""

from __future__ import annotations

import math

import numpy as np

from unlabeled.data.pixels.kernels.kernel import kernel
from unlabeled.data.pixels.kernels.typed import subtract_signed

WHITE = np.int16(255)


@kernel
def solarize(channel: np.ndarray, threshold: float) -> None:
    """x' = 255 - x where x >= threshold."""
    level = np.int16(min(max(math.ceil(threshold), 0), 256))
    for i in range(len(channel)):
        value = np.int16(channel[i])
        channel[i] = np.uint8(subtract_signed(WHITE, value) if value >= level else value)
