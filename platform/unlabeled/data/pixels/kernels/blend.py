"""Brightness, contrast and saturation: x' = d + f (x - d), clipped to 0..255 and truncated.

d is black, the mean grey, or the pixel's luma. PIL computes in single precision. For a factor f =
q / 8192 with an integer q < 2^16 nothing of that is rounded: |q (x - d)| < 2^24. So

    x' = clip(d + floor(q (x - d) / 8192))

is PIL's pixel to the bit (truncation is floor, as what is negative is clipped), and fits 16-bit
arithmetic: floor(q (x - d) / 8192) = floor(floor(128 (x - d) q / 65536) / 16). Factors off this
grid, or from 8 on, take PIL's own floating-point steps, at about a third of the speed.
"""

from __future__ import annotations

import numpy as np

from unlabeled.data.pixels.kernels.kernel import inlined, kernel
from unlabeled.data.pixels.kernels.luma import luma
from unlabeled.data.pixels.kernels.typed import (
    add_signed,
    high_half_signed,
    high_half_unsigned,
    shift_left_signed,
    shift_left_unsigned,
    shift_right_signed,
    shift_right_unsigned,
    subtract_signed,
)

GRID = 8192
LARGEST = 2**16 - 1

# Constants of the types they are used with: a plain 4 would be 64 bits wide.
BLACK, WHITE, SEVEN, FOUR = np.int16(0), np.int16(255), np.int16(7), np.int16(4)
EIGHT, FIVE, WHITE_WORD = np.uint16(8), np.uint16(5), np.uint16(255)
DARKEST, BRIGHTEST = np.float32(0), np.float32(255)


@inlined
def on_grid(factor: float) -> bool:
    """Whether the factor is q / 8192 with an integer q in 0..2^16 - 1."""
    steps = factor * GRID
    return 0 <= steps <= LARGEST and steps == np.floor(steps)


@kernel
def brightness(channel: np.ndarray, factor: float) -> None:
    """Blend with black."""
    if not on_grid(factor):
        constant_blend(channel, np.float32(0), np.float32(factor))
        return
    # d = 0 needs no sign: floor(q x / 8192) = floor(floor(256 x q / 65536) / 32).
    q = np.uint16(factor * GRID)
    for i in range(len(channel)):
        product = high_half_unsigned(shift_left_unsigned(np.uint16(channel[i]), EIGHT), q)
        channel[i] = np.uint8(min(shift_right_unsigned(product, FIVE), WHITE_WORD))


@kernel
def contrast(channel: np.ndarray, mean: int, factor: float) -> None:
    """Blend with one grey level."""
    if not on_grid(factor):
        constant_blend(channel, np.float32(mean), np.float32(factor))
        return
    q, grey = np.uint16(factor * GRID), np.int16(mean)
    for i in range(len(channel)):
        channel[i] = blended(grey, channel[i], q)


@kernel
def saturation(red: np.ndarray, green: np.ndarray, blue: np.ndarray, factor: float) -> None:
    """Blend every pixel with its luma."""
    if not on_grid(factor):
        luma_blend(red, green, blue, np.float32(factor))
        return
    q = np.uint16(factor * GRID)
    for i in range(len(red)):
        grey = np.int16(luma(red[i], green[i], blue[i]))
        red[i] = blended(grey, red[i], q)
        green[i] = blended(grey, green[i], q)
        blue[i] = blended(grey, blue[i], q)


@inlined
def blended(other: np.int16, value: np.uint8, q: np.uint16) -> np.uint8:
    """clip(other + floor(q (value - other) / 8192))."""
    scaled = shift_left_signed(subtract_signed(np.int16(value), other), SEVEN)
    change = shift_right_signed(high_half_signed(scaled, q), FOUR)
    result: np.uint8 = np.uint8(min(max(add_signed(other, change), BLACK), WHITE))
    return result


@kernel
def constant_blend(channel: np.ndarray, other: np.float32, factor: np.float32) -> None:
    """Blend with one grey level by any factor, in single precision."""
    for i in range(len(channel)):
        channel[i] = blended_float(other, channel[i], factor)


@kernel
def luma_blend(red: np.ndarray, green: np.ndarray, blue: np.ndarray, factor: np.float32) -> None:
    """Blend with the luma by any factor, in single precision."""
    for i in range(len(red)):
        grey = np.float32(luma(red[i], green[i], blue[i]))
        red[i] = blended_float(grey, red[i], factor)
        green[i] = blended_float(grey, green[i], factor)
        blue[i] = blended_float(grey, blue[i], factor)


@inlined
def blended_float(other: np.float32, value: np.uint8, factor: np.float32) -> np.uint8:
    """clip(other + factor (value - other)), every step rounded to single precision."""
    blend = other + factor * (np.float32(value) - other)
    result: np.uint8 = np.uint8(np.int32(min(max(blend, DARKEST), BRIGHTEST)))
    return result
