"""The portable backend's blur: PIL's passes of a box filter, each as shifted sums of whole rows."""

from __future__ import annotations

import numpy as np

from unlabeled.data.pixels.box_blur import PASSES, gaussian_box

GROUP_VALUES = 50_000
"""Values filtered together: three float32 arrays of this size stay in a core's cache."""


def blur(pixels: np.ndarray, sigma: float) -> None:
    """Float32 [3, s, s] of whole numbers, blurred in place and rounded after every pass as in PIL.

    Where the exact sum of a pass ends in one half, PIL's depends on how its integer weights were
    rounded, and may be one level higher than here; for sigma drawn at random that hardly happens.
    """
    # PIL's weights are integers that mostly sum to less than one: halves are rounded down.
    box = gaussian_box(sigma) * (1 - 2.0**-19)
    margin, size = len(box) // 2, pixels.shape[1]
    group = max(1, min(3, GROUP_VALUES // pixels[0].size))
    memory = np.zeros((3, group, size + 2 * margin, size + 2 * margin), np.float32)
    for first in range(0, 3, group):
        planes = pixels[first : first + group]
        _blur(planes, box, memory[:, : len(planes)])


def _blur(planes: np.ndarray, box: np.ndarray, memory: np.ndarray) -> None:
    """Planes [k, s, s] in place; memory: [3, k, s + 2 m, s + 2 m] for a box of 2 m + 1 pixels."""
    margin, side = len(box) // 2, memory.shape[-1]
    inner = slice(margin, side - margin)
    image, other, spare = memory
    image[:, inner, inner] = planes
    # With all rows one behind the other, the neighbours in a column are `side` apart.
    for axis, step in ((2, 1), (1, side)):
        for _ in range(PASSES):
            _continue_edges(image.swapaxes(1, axis), margin)
            _filter(image.reshape(-1), box, step, other.reshape(-1), spare.reshape(-1))
            image, other = other, image
    planes[...] = image[:, inner, inner]


def _continue_edges(lines: np.ndarray, margin: int) -> None:
    """Copy the image's first and last line [:, i] into the margins before and behind it."""
    lines[:, :margin] = lines[:, margin : margin + 1]
    lines[:, -margin:] = lines[:, -margin - 1 : -margin]


def _filter(
    pixels: np.ndarray, box: np.ndarray, step: int, out: np.ndarray, spare: np.ndarray
) -> None:
    """Rounded weighted sums of pixels `step` apart, for all that have enough neighbours."""
    margin = len(box) // 2
    first, last = margin * step, len(pixels) - margin * step
    shifted = [pixels[first + k * step : last + k * step] for k in range(-margin, margin + 1)]
    total, middle = out[first:last], spare[first:last]
    np.add(shifted[0], shifted[-1], out=total)
    total *= np.float32(box[0])
    if margin == 1:
        np.multiply(shifted[1], np.float32(box[1]), out=middle)
    else:
        np.add(shifted[1], shifted[2], out=middle)
        for neighbour in shifted[3:-1]:
            middle += neighbour
        middle *= np.float32(box[1])
    total += middle
    np.rint(total, out=total)
