"""PIL's Gaussian blur: three box averages along each axis, each rounded to bytes, bit for bit.

The box of PIL reaches a fraction of a pixel beyond the r pixels on either side, so that any
standard deviation can be met. With x_i = x_0 before the line and its last pixel behind it,

    y_i = floor((inner (x_{i-r} + ... + x_{i+r}) + outer (x_{i-r-1} + x_{i+r+1})) / 2^24 + 1/2)

for whole weights inner and outer. The sum of the 2 r + 1 pixels moves along the line: adding one
pixel and subtracting another, it costs the same for every r.
"""

from __future__ import annotations

import math

import numpy as np

from unlabeled.data.pixels.kernels.kernel import inlined, kernel
from unlabeled.data.pixels.kernels.lanes import (
    COUNT,
    filled,
    load,
    minus,
    plus,
    store,
    times,
    top_byte,
    widened,
)
from unlabeled.data.pixels.kernels.margins import with_margins, without_margins
from unlabeled.data.pixels.kernels.scratch import Scratch
from unlabeled.data.pixels.kernels.turning import turn, turn_back

PASSES = np.float32(3)  # PIL's ImageFilter.GaussianBlur
UNIT = 1 << 24
HALF = np.int32(UNIT // 2)
LARGEST_SIGMA = np.float32(1 << 14)
"""A view is flat long before; and single precision, in which PIL finds the box, still suffices."""
ONE, TWO, THREE, SIX = np.float32(1), np.float32(2), np.float32(3), np.float32(6)
# Of this type: numba compiles again for every plain constant.
START, STRIDE = np.int64(0), np.int64(COUNT)

Box = tuple[int, np.int32, np.int32]
"""r, inner and outer."""


@inlined
def blur(planes: np.ndarray, size: int, sigma: float, grey: bool, scratch: Scratch) -> None:
    """Blur [3, size, size], flat, in place; grey: the planes are equal, so one is enough."""
    box = box_of(np.float32(sigma))
    source = planes if size >= COUNT else with_margins(planes, size, scratch.margins)
    line = max(size, COUNT)
    count = 1 if grey else 3
    for plane in range(count):
        start = plane * line * line
        blur_along_rows(source, start, line, size, box, scratch)
        blur_down_columns(scratch.rows, line, size, box, source, start, scratch)
    if size < COUNT:
        without_margins(scratch.margins, size, planes)
    if grey:
        for i in range(size * size):
            planes[size * size + i] = planes[i]
            planes[2 * size * size + i] = planes[i]


@inlined
def blur_along_rows(
    plane: np.ndarray, start: int, line: int, size: int, box: Box, scratch: Scratch
) -> None:
    """From a plane of rows of `line` bytes to scratch.rows, sixteen rows at a time."""
    for band in range(0, line, COUNT):
        top = min(band, line - COUNT)
        turn(plane, start + top * line, line, line, scratch.columns)
        average(scratch.columns, START, STRIDE, size, box, scratch.results, START, STRIDE)
        average(scratch.results, START, STRIDE, size, box, scratch.columns, START, STRIDE)
        average(scratch.columns, START, STRIDE, size, box, scratch.results, START, STRIDE)
        turn_back(scratch.results, START, STRIDE, line, scratch.rows, top * line, line)


@inlined
def blur_down_columns(
    rows: np.ndarray,
    line: int,
    size: int,
    box: Box,
    plane: np.ndarray,
    start: int,
    scratch: Scratch,
) -> None:
    """From scratch.rows back to the plane, sixteen columns at a time."""
    for x in range(0, line, COUNT):
        left = min(x, line - COUNT)
        average(rows, left, line, size, box, scratch.results, START, STRIDE)
        average(scratch.results, START, STRIDE, size, box, scratch.columns, START, STRIDE)
        average(scratch.columns, START, STRIDE, size, box, plane, start + left, line)


@kernel
def average(
    source: np.ndarray,
    at: int,
    pitch: int,
    count: int,
    box: Box,
    target: np.ndarray,
    to: int,
    target_pitch: int,
) -> None:
    """One pass over sixteen lines of `count` pixels; a pixel of all of them every `pitch` bytes."""
    radius, inner, outer = box
    last = count - 1
    first_pixels = widened(load(source, at))
    last_pixels = widened(load(source, at + last * pitch))
    total = plus(
        times(first_pixels, np.int32(radius + 1)),
        times(last_pixels, np.int32(max(radius - last, 0))),
    )
    for i in range(1, min(radius, last) + 1):
        total = plus(total, widened(load(source, at + i * pitch)))
    before = leaving = first_pixels
    for i in range(count):
        # total: x_{i-r} + ... + x_{i+r}; before: x_{i-r-1}; leaving: x_{i-r}; entering: x_{i+r+1}
        entering = widened(load(source, at + min(i + radius + 1, last) * pitch))
        edges = times(plus(before, entering), outer)
        value = plus(plus(times(total, inner), edges), filled(HALF))
        store(target, to + i * target_pitch, top_byte(value))
        if radius == 0:  # all of them stay in registers
            total, before, leaving = entering, total, entering
        else:
            total = plus(total, minus(entering, leaving))
            before = leaving
            leaving = widened(load(source, at + max(i + 1 - radius, 0) * pitch))


@kernel
def box_of(sigma: np.float32) -> tuple[int, np.int32, np.int32]:
    """The box whose three-fold application has variance sigma^2, in PIL's precision.

    Reference: Gwosdek et al. 2011, "Theoretical Foundations of Gaussian Convolution by Extended Box
    Filtering", section 2.
    """
    sigma = min(sigma, LARGEST_SIGMA)
    variance = sigma * sigma / PASSES
    width = np.float32(math.sqrt(12.0 * np.float64(variance) + 1.0))
    whole = np.float32(math.floor((np.float64(width) - 1.0) / 2.0))
    part = (TWO * whole + ONE) * (whole * (whole + ONE) - THREE * variance)
    part = part / (SIX * (variance - (whole + ONE) * (whole + ONE)))
    reach = whole + part
    radius = int(reach)
    inner = int(np.float32(UNIT) / (reach * TWO + ONE))
    outer = (UNIT - (2 * radius + 1) * inner) // 2
    return radius, np.int32(inner), np.int32(outer)
