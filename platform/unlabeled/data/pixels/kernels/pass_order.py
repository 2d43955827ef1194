"""Which axis of a box PIL resizes first.

Up to release 12 that is always the horizontal one; 13.0 begins with the rows of tall boxes. With
bytes in between the order shows: by a level, or more where a bicubic filter overshoots and is
clipped. The compiled backend follows the PIL that is installed, as the reference does.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from unlabeled.data.pixels.kernels.kernel import inlined


@inlined
def is_tall(width: int, height: int, size: int) -> bool:
    """The rule of PIL 13 for size x size pixels."""
    return height > size and 2 * width < height + size


def begins_with_rows() -> bool:
    """Whether the PIL at hand does so for tall images."""
    white_corners = np.array([[0, 255], [0, 0], [0, 0], [0, 255]], np.uint8)
    resized = Image.fromarray(white_corners).resize((3, 3), Image.Resampling.BICUBIC)
    # The upper right pixel: 205, or 192 if the horizontal overshoot is clipped before the rows add.
    return int(np.asarray(resized)[0, 2]) > (192 + 205) // 2
