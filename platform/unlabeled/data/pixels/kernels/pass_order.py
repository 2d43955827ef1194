"""Which axis of a box PIL resizes first.

Usually the horizontal one. Pillow 13 begins with the rows of tall boxes, earlier releases with
those of boxes a hundred times as high as wide. With bytes in between the order shows: by a level,
or more where a bicubic filter overshoots and is clipped. The compiled backend follows the PIL that
is installed, as the reference does.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from unlabeled.data.pixels.kernels.kernel import inlined

NEVER, VERY_TALL, TALL = range(3)


@inlined
def rows_come_first(rule: int, width: int, height: int, size: int) -> bool:
    """Whether a box is resized vertically first to size x size pixels."""
    if rule == TALL:
        return height > size and 2 * width < height + size
    return rule == VERY_TALL and height > size and height > 100 * width


def rule_of_pil() -> int:
    """The rule that the PIL at hand follows, found by trying it."""
    if _begins_with_rows(width=2, height=4):
        return TALL
    return VERY_TALL if _begins_with_rows(width=2, height=300) else NEVER


def _begins_with_rows(width: int, height: int) -> bool:
    noise = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (height, width))
    image, cubic = Image.fromarray(noise), Image.Resampling.BICUBIC
    rows_first = image.resize((width, 3), cubic).resize((3, 3), cubic)
    columns_first = image.resize((3, height), cubic).resize((3, 3), cubic)
    assert rows_first.tobytes() != columns_first.tobytes(), "a probe that shows nothing"
    return image.resize((3, 3), cubic).tobytes() == rows_first.tobytes()
