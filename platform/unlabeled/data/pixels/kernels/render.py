"""The interpreter: one call makes all views of an image, step after step."""

from __future__ import annotations

import numpy as np
from numba import carray

from unlabeled.data.pixels.kernels import blend, luma, pass_order
from unlabeled.data.pixels.kernels.blur import blur
from unlabeled.data.pixels.kernels.hue import hue
from unlabeled.data.pixels.kernels.kernel import inlined, kernel
from unlabeled.data.pixels.kernels.mirror import mirror_columns, mirror_rows
from unlabeled.data.pixels.kernels.resize import resize
from unlabeled.data.pixels.kernels.scratch import Scratch
from unlabeled.data.pixels.kernels.solarize import solarize
from unlabeled.data.pixels.kernels.typed import pointer
from unlabeled.data.pixels.table import CODES

HORIZONTAL_FLIP = CODES["horizontal_flip"]
VERTICAL_FLIP = CODES["vertical_flip"]
BRIGHTNESS = CODES["brightness"]
CONTRAST = CODES["contrast"]
SATURATION = CODES["saturation"]
HUE = CODES["hue"]
GRAYSCALE = CODES["grayscale"]
BLUR = CODES["gaussian_blur"]
SOLARIZE = CODES["solarize"]

UNKNOWN = np.int64(-1)  # of this type: numba compiles again for every plain constant

TILE = 2304
"""Pixels that are taken through a run of steps together: their 7 KB stay in the first cache."""


def render(
    image_address: int,
    width: int,
    height: int,
    rule: int,
    views: np.ndarray,
    codes: np.ndarray,
    numbers: np.ndarray,
    scratch: Scratch,
) -> None:
    """Make the views of an RGB uint8 image [height, width, 3] in contiguous memory.

    rule: when the rows come first, see pass_order.py. views: int64 [v, 9], a view a row:
    address of its uint8 [3, size, size]; left, top, right, bottom; size; whether bicubic; and its
    first step and the one after its last in codes (int64 [n]) and numbers (float64 [n]).
    Reads and writes exactly the memory that these describe.
    """
    image = carray(pointer(image_address), 3 * width * height)
    pitch = 3 * width
    for view in range(len(views)):
        address, left, top, right, bottom, size, bicubic, first, end = views[view]
        planes = carray(pointer(address), 3 * size * size)
        # A mirrored resize costs nothing, and it is where SwAV's flip stands.
        mirrored = first < end and codes[first] == HORIZONTAL_FLIP
        rows_first = pass_order.rows_come_first(rule, right - left, bottom - top, size)
        resize(
            image,
            top * pitch + 3 * left,
            pitch,
            right - left,
            bottom - top,
            size,
            bicubic != 0,
            mirrored,
            rows_first,
            planes,
            scratch,
        )
        first += mirrored
        change(planes, size, codes[first:end], numbers[first:end], scratch)


@inlined
def change(
    planes: np.ndarray, size: int, codes: np.ndarray, numbers: np.ndarray, scratch: Scratch
) -> None:
    """Take a view [3, size, size], flat, through its steps."""
    count = len(codes)
    grey = np.bool_(False)  # once the channels are equal, no step makes them differ
    mean = UNKNOWN
    place = np.int64(0)
    while place < count:
        code = codes[place]
        if code in (HORIZONTAL_FLIP, VERTICAL_FLIP):
            mirror(planes, size, code)
            place += 1
        elif code == BLUR:
            if numbers[place] > 0:
                blur(planes, size, numbers[place], grey, scratch)
            place += 1
        else:
            end = end_of_run(codes, place, mean)
            needs_mean = end < count and codes[end] == CONTRAST
            total = run(planes, size, codes[place:end], numbers[place:end], mean, needs_mean)
            mean = int(total / (size * size) + 0.5) if needs_mean else UNKNOWN
            for k in range(place, end):
                grey = grey or codes[k] == GRAYSCALE
            place = end


@inlined
def end_of_run(codes: np.ndarray, place: int, mean: int) -> int:
    """Where the steps from `place` on end that change each pixel by itself.

    A contrast is one of them only if the mean grey of the pixels before it is known; otherwise the
    run (possibly of no step) finds it.
    """
    end = place
    while end < len(codes):
        code = codes[end]
        if code in (HORIZONTAL_FLIP, VERTICAL_FLIP, BLUR):
            break
        if code == CONTRAST and (end > place or mean == UNKNOWN):
            break
        end += 1
    return end


@kernel
def run(
    planes: np.ndarray,
    size: int,
    codes: np.ndarray,
    numbers: np.ndarray,
    mean: int,
    needs_mean: bool,
) -> int:
    """Take all pixels through steps on single pixels; the sum of their luma if it is needed."""
    area = size * size
    total = 0
    for start in range(0, area, TILE):
        end = min(start + TILE, area)
        red = planes[start:end]
        green = planes[area + start : area + end]
        blue = planes[2 * area + start : 2 * area + end]
        for k in range(len(codes)):
            step(red, green, blue, codes[k], numbers[k], mean)
        if needs_mean:
            total += luma.luma_sum(red, green, blue)
    return total


@inlined
def step(
    red: np.ndarray, green: np.ndarray, blue: np.ndarray, code: int, number: float, mean: int
) -> None:
    """One step on the pixels of a tile."""
    if code == SATURATION:
        blend.saturation(red, green, blue, number)
    elif code == HUE:
        hue(red, green, blue, np.float32(int(number * 255) & 255))
    elif code == GRAYSCALE:
        luma.grayscale(red, green, blue)
    else:
        for channel in (red, green, blue):
            if code == BRIGHTNESS:
                blend.brightness(channel, number)
            elif code == CONTRAST:
                blend.contrast(channel, mean, number)
            elif code == SOLARIZE:
                solarize(channel, number)


@inlined
def mirror(planes: np.ndarray, size: int, code: int) -> None:
    """Mirror all planes of a view."""
    for plane in range(3):
        part = planes[plane * size * size : (plane + 1) * size * size]
        if code == HORIZONTAL_FLIP:
            mirror_columns(part, size)
        else:
            mirror_rows(part, size)
