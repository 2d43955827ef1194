"""Turn the hue by way of PIL's 8-bit HSV, equal to PIL for all 2^24 colours and all turns.

PIL's forward conversion takes quotients of small integers in single precision, its backward one
mixes single and double; all results are truncated to bytes. The sequence of single-precision
operations below rounds to the same bytes; rearranging it (multiplying by 1/6 instead of dividing by
6, say) is as good mathematically and changes some. The tests run through all colours.
"""

from __future__ import annotations

import numpy as np

from unlabeled.data.pixels.kernels.kernel import inlined, kernel

ZERO, HALF, ONE, TWO, THREE, FOUR, SIX, WHITE, TURN, PER_WHITE = (
    np.float32(number) for number in (0, 0.5, 1, 2, 3, 4, 6, 255, 256, 1 / 255)
)


@kernel
def hue(red: np.ndarray, green: np.ndarray, blue: np.ndarray, turn: np.float32) -> None:
    """H' = (H + turn) mod 256 in 8-bit HSV; turn: a whole number in 0..255."""
    for i in range(len(red)):
        r, g, b = np.float32(red[i]), np.float32(green[i]), np.float32(blue[i])
        value = max(r, max(g, b))
        least = min(r, min(g, b))
        chroma = value - least
        saturation = whole(chroma / max(value, ONE) * WHITE)
        angle = hue_of(r, g, b, value, least) + turn
        angle = angle - TURN if angle >= TURN else angle
        # 0..6; a channel is at full value within one of its own corner of the hexagon (red at 0 =
        # 6, green at 2, blue at 4), and falls to the least over the next.
        corner = angle * SIX / WHITE
        share = saturation * PER_WHITE
        red[i] = faded(value, share * unit(TWO - abs(corner - THREE)))
        green[i] = faded(value, share * unit(abs(corner - TWO) - ONE))
        blue[i] = faded(value, share * unit(abs(corner - FOUR) - ONE))


@inlined
def hue_of(
    r: np.float32, g: np.float32, b: np.float32, value: np.float32, least: np.float32
) -> np.float32:
    """PIL's H of a colour, 0..255: the sixths of the circle, from the largest channel's corner on.

    Between the corners it moves with the middle channel m: by q = (value - m) / chroma.
    """
    chroma = value - least
    q = (value - ((r + g + b) - value - least)) / max(chroma, ONE)
    red_leads, green_leads = value == r, value == g
    corner = ZERO if red_leads else (TWO if green_leads else FOUR)
    rising = least == b if red_leads else (least == r if green_leads else least == g)
    sixths = (corner + ONE) - q if rising else (corner - ONE) + q
    circles = sixths / SIX
    circles = circles + ONE if circles < ZERO else circles
    result: np.float32 = whole(circles * WHITE) if chroma > ZERO else ZERO
    return result


@inlined
def faded(value: np.float32, share: np.float32) -> np.uint8:
    """value (1 - share), rounded half up."""
    result: np.uint8 = np.uint8(np.int32(value * (ONE - share) + HALF))
    return result


@inlined
def whole(number: np.float32) -> np.float32:
    """Truncated."""
    result: np.float32 = np.float32(np.int32(number))
    return result


@inlined
def unit(number: np.float32) -> np.float32:
    """Clipped to 0..1."""
    return min(max(number, ZERO), ONE)
