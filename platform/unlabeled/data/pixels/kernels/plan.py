"""The decisions about a sample's views: `Recipe.plan`, in compiled code and to the same bit."""

from __future__ import annotations

import math

import numpy as np

from unlabeled.data.pixels.geometry import CROP_DRAWS, TRIES
from unlabeled.data.pixels.kernels.kernel import inlined, kernel
from unlabeled.data.randomness import GAMMA, MULTIPLIER_1, MULTIPLIER_2

STEP = np.uint64(GAMMA)
FACTOR_1, FACTOR_2 = np.uint64(MULTIPLIER_1), np.uint64(MULTIPLIER_2)
SHIFT_1, SHIFT_2, SHIFT_3, SHIFT_OUT = (np.uint64(bits) for bits in (30, 27, 31, 11))


def plan(
    sample: int,
    width: int,
    height: int,
    views: np.ndarray,
    chances: np.ndarray,
    steps: np.ndarray,
    draws: int,
    table: np.ndarray,
    codes: np.ndarray,
    numbers: np.ndarray,
    deferred: np.ndarray,
) -> None:
    """Fill in what `render.render` takes, but for the addresses in table[:, 0].

    sample: the hash of the sample's words; views, chances, steps: the `recipe.Tables`; draws:
    uniforms a view. deferred: float64 [V, T, 2]; with T > 0 the steps go there, zeros behind them,
    and views are left without.
    """
    uniforms, keys = np.empty(draws), np.empty(len(codes))
    place = np.int64(0)  # of this type: numba compiles again for every plain constant
    for view in range(len(views)):
        fill_uniforms(sample, view, uniforms)
        first = place
        for row in range(int(views[view, 8]), int(views[view, 9])):
            place = decide(chances[row], steps, uniforms, place, codes, numbers, keys)
        if deferred.shape[1]:
            deferred[view] = 0.0
            for k in range(first, place):
                deferred[view, k - first, 0], deferred[view, k - first, 1] = codes[k], numbers[k]
            place = first
        left, top, right, bottom = crop_box(uniforms, width, height, views[view])
        table[view, 1], table[view, 2], table[view, 3], table[view, 4] = left, top, right, bottom
        table[view, 5], table[view, 6] = int(views[view, 6]), int(views[view, 7])
        table[view, 7], table[view, 8] = first, place


@inlined
def fill_uniforms(sample: int, view: int, uniforms: np.ndarray) -> None:
    """`randomness.uniforms`."""
    state = finalised((np.uint64(sample) ^ np.uint64(view)) + STEP)
    for k in range(len(uniforms)):
        state += STEP
        uniforms[k] = float(finalised(state) >> SHIFT_OUT) * 2.0**-53


@inlined
def finalised(word: np.uint64) -> np.uint64:
    """The finaliser of splitmix64."""
    word = (word ^ (word >> SHIFT_1)) * FACTOR_1
    word = (word ^ (word >> SHIFT_2)) * FACTOR_2
    mixed: np.uint64 = word ^ (word >> SHIFT_3)
    return mixed


@kernel
def decide(
    chance: np.ndarray,
    steps: np.ndarray,
    uniforms: np.ndarray,
    place: int,
    codes: np.ndarray,
    numbers: np.ndarray,
    keys: np.ndarray,
) -> int:
    """`Chance.decide`: write its steps from `place` on; the place behind them."""
    offset, start = int(chance[1]), place
    if uniforms[offset] >= chance[0]:
        return place
    for row in range(int(chance[2]), int(chance[3])):
        code, low, high, number_from, sorted_by, grid = steps[row]
        number = low
        if number_from >= 0:
            number = low + uniforms[offset + int(number_from)] * (high - low)
            if grid > 0:
                number = np.rint(number * grid) / grid
        key = uniforms[offset + int(sorted_by)] if sorted_by >= 0 else 0.0
        # Insertion keeps equal keys in order, as Python's sort does.
        k = place
        while k > start and keys[k - 1] > key:
            codes[k], numbers[k], keys[k] = codes[k - 1], numbers[k - 1], keys[k - 1]
            k -= 1
        codes[k], numbers[k], keys[k] = int(code), number, key
        place += 1
    return place


@kernel
def crop_box(
    uniforms: np.ndarray, width: int, height: int, view: np.ndarray
) -> tuple[int, int, int, int]:
    """`geometry.random_crop_box`."""
    scale_low, scale_high, ratio_low, ratio_high, low, high = view[:6]
    for k in range(0, 2 * TRIES, 2):
        area = (scale_low + uniforms[k] * (scale_high - scale_low)) * width * height
        aspect = math.exp(low + uniforms[k + 1] * (high - low))
        w, h = int(np.rint(math.sqrt(area * aspect))), int(np.rint(math.sqrt(area / aspect)))
        if 0 < w <= width and 0 < h <= height:
            top = int(uniforms[CROP_DRAWS - 2] * (height - h + 1))
            left = int(uniforms[CROP_DRAWS - 1] * (width - w + 1))
            return left, top, left + w, top + h
    w, h = width, height
    if width / height < ratio_low:
        h = int(np.rint(width / ratio_low))
    elif width / height > ratio_high:
        w = int(np.rint(height * ratio_high))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
