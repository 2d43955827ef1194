"""The filter that PIL's Gaussian blur amounts to."""

from __future__ import annotations

import math

import numpy as np

PASSES = 3  # PIL's ImageFilter.GaussianBlur


def gaussian_box(sigma: float) -> np.ndarray:
    """Float64 [2 l + 3], sum 1: the filter that, applied PASSES times, has the variance sigma^2.

    It averages 2 l + 1 pixels equally and one more on either side by a fraction of that weight.
    Reference: Gwosdek et al. 2011, "Theoretical Foundations of Gaussian Convolution by Extended Box
    Filtering", section 2.
    """
    variance = sigma * sigma / PASSES
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    part /= 6 * (variance - (whole + 1) ** 2)
    box = np.ones(2 * whole + 3)
    box[[0, -1]] = part
    box /= box.sum()
    return box
