"""Cut a box from an image and resize it with antialiasing, into colour planes."""

from __future__ import annotations

import numpy as np

from unlabeled.data.pixels.kernels.kernel import inlined
from unlabeled.data.pixels.kernels.lanes import COUNT
from unlabeled.data.pixels.kernels.line_filter import (
    BAND,
    GROUPS,
    LineFilter,
    weigh_columns,
    weigh_rows,
)
from unlabeled.data.pixels.kernels.margins import box_with_margins, without_margins
from unlabeled.data.pixels.kernels.scratch import Scratch
from unlabeled.data.pixels.kernels.turning import turn, turn_back
from unlabeled.data.pixels.kernels.weights import filter_weights

# Of this type: numba compiles again for every plain constant.
START, BAND_STRIDE = np.int64(0), np.int64(BAND)


@inlined
def resize(
    image: np.ndarray,
    at: int,
    pitch: int,
    width: int,
    height: int,
    size: int,
    bicubic: bool,
    mirrored: bool,
    rows_first: bool,
    out: np.ndarray,
    scratch: Scratch,
) -> None:
    """The box of width x height pixels from `at` on, resized to out [3, size, size], flat.

    image: flat, three bytes a pixel, `pitch` bytes a row. mirrored: left to right, afterwards.
    Each axis is rounded and clipped to bytes, as in PIL; rows_first: PIL's order for tall boxes
    (`pass_order.py`). Less than sixteen rows or bytes are copied to where there is room for more.
    """
    if 3 * width < COUNT or height < COUNT:
        image, at, pitch = box_with_margins(image, at, pitch, width, height, scratch.margins)
    first_x, first_y = scratch.first_x[:size], scratch.first_y[:size]
    filter_x = filter_weights(width, bicubic, first_x, scratch.weights_x, scratch.shares)
    filter_y = filter_weights(height, bicubic, first_y, scratch.weights_y, scratch.shares)
    length, there = max(3 * width, COUNT), max(height, COUNT)
    target = out if size >= COUNT else scratch.margins
    if rows_first:
        resize_rows_first(image, at, pitch, length, filter_x, filter_y, mirrored, target, scratch)
    else:
        resize_columns_first(
            image, at, pitch, length, there, filter_x, filter_y, mirrored, target, scratch
        )
    if size < COUNT:
        without_margins(scratch.margins, size, out)


@inlined
def resize_columns_first(
    image: np.ndarray,
    at: int,
    pitch: int,
    length: int,
    height: int,
    filter_x: LineFilter,
    filter_y: LineFilter,
    mirrored: bool,
    out: np.ndarray,
    scratch: Scratch,
) -> None:
    """Along the rows of the box, of `length` bytes, and then down the planes that come of it."""
    line = max(len(filter_x[0]), COUNT)
    for band in range(0, height, COUNT):
        top = min(band, height - COUNT)
        turn(image, at + top * pitch, pitch, length, scratch.columns)
        weigh_columns(scratch.columns, filter_x, mirrored, scratch.results)
        for plane in range(GROUPS):
            to = (top * GROUPS + plane) * line
            part = plane * COUNT
            turn_back(scratch.results, part, BAND_STRIDE, line, scratch.rows, to, GROUPS * line)
    for plane in range(GROUPS):
        start, to = plane * line, plane * line * line
        weigh_rows(scratch.rows, start, GROUPS * line, line, filter_y, out, to, line)


@inlined
def resize_rows_first(
    image: np.ndarray,
    at: int,
    pitch: int,
    length: int,
    filter_x: LineFilter,
    filter_y: LineFilter,
    mirrored: bool,
    out: np.ndarray,
    scratch: Scratch,
) -> None:
    """Down the box, all channels as they lie, and then along the rows that come of it."""
    line = max(len(filter_x[0]), COUNT)
    weigh_rows(image, at, pitch, length, filter_y, scratch.rows, START, length)
    for band in range(0, line, COUNT):
        top = min(band, line - COUNT)
        turn(scratch.rows, top * length, length, length, scratch.columns)
        weigh_columns(scratch.columns, filter_x, mirrored, scratch.results)
        for plane in range(GROUPS):
            to = (plane * line + top) * line
            turn_back(scratch.results, plane * COUNT, BAND_STRIDE, line, out, to, line)
