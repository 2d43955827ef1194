"""The portable backend's turn of the hue, in PIL's 8-bit HSV."""

from __future__ import annotations

import numpy as np

SPARE_PLANES = 4


def adjust_hue(pixels: np.ndarray, shift: float, spare: np.ndarray) -> None:
    """Turn by `shift` of the full circle: float32 [3, n] of whole numbers, changed in place.

    PIL truncates hue and saturation to 8 bits, where any rounding error makes a whole level, so
    they are computed in PIL's order and precision. spare: float32 [SPARE_PLANES, n] to work in.
    """
    value, chroma, saturation, work = spare
    _extremes(pixels, value, chroma)
    np.maximum(value, 1, out=work)
    np.divide(chroma, work, out=saturation)
    saturated = _bytes(saturation)
    np.maximum(chroma, 1, out=chroma)  # a grey has no hue, and no saturation to show it
    hue = _hue(pixels, value, chroma, work)
    turned = _bytes(hue)
    turned += np.uint8(int(shift * 255) % 256)  # modulo 256

    # In sixths of the circle; a channel is value - value * saturation * (1 - share), where its
    # share of the pure hue is a trapezoid centred on red (0 and 6), green (2) or blue (4).
    np.multiply(turned, np.float32(6 / 255), out=hue)
    np.multiply(saturated, np.float32(1 / 255), out=saturation)
    saturation *= value
    red, green, blue = pixels
    np.abs(np.subtract(hue, 3, out=red), out=red)
    np.subtract(2, red, out=red)
    for plane, centre in ((green, 2), (blue, 4)):
        np.abs(np.subtract(hue, centre, out=plane), out=plane)
        plane -= 1
    np.maximum(pixels, 0, out=pixels)
    np.minimum(pixels, 1, out=pixels)
    pixels *= saturation
    np.subtract(value, pixels, out=pixels)
    np.rint(pixels, out=pixels)


def _extremes(pixels: np.ndarray, largest: np.ndarray, span: np.ndarray) -> None:
    """The largest channel, and how far the smallest is below it."""
    red, green, blue = pixels
    np.maximum(red, green, out=largest)
    np.maximum(largest, blue, out=largest)
    np.minimum(red, green, out=span)
    np.minimum(span, blue, out=span)
    np.subtract(largest, span, out=span)


def _hue(pixels: np.ndarray, value: np.ndarray, span: np.ndarray, work: np.ndarray) -> np.ndarray:
    """The hue as a share of the circle, [n] in [0, 1); overwrites `pixels`, `span` and `work`."""
    red, green, blue = pixels
    red_largest, green_largest = red == value, green == value
    np.subtract(value, pixels, out=pixels)
    pixels /= span
    hue = span
    np.subtract(green, red, out=hue)
    hue += 4
    np.subtract(red, blue, out=work)
    work += 2
    np.copyto(hue, work, where=green_largest)
    np.subtract(blue, green, out=work)
    np.copyto(hue, work, where=red_largest)
    hue /= 6
    np.floor(hue, out=work)
    hue -= work
    return hue


def _bytes(shares: np.ndarray) -> np.ndarray:
    """Uint8 255 x of x in [0, 1], truncated; overwrites x."""
    shares *= 255
    return shares.astype(np.uint8)
