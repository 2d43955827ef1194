"""From a file to RGB uint8, whatever people keep their images in; everything else is a BrokenImage.

PIL is the reference. Alpha is dropped, not composited: the colours stored underneath are what
torchvision's loader gives, so numbers stay comparable, and no background colour has to be invented.
Sixteen-bit grey is scaled by 1/257 (65535 -> 255), where PIL's own conversion would clip at 255.
EXIF orientation is applied; of several frames or pages the first is taken.
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# What PIL's format plugins raise on malformed bytes.
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
)


class BrokenImage(Exception):
    """An image that cannot be read or decoded; the message is a short reason without the path."""


def decode_file(path: str | os.PathLike[str]) -> np.ndarray:
    """RGB uint8 [h, w, 3] of an image file; BrokenImage if it cannot be read or decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a million odd EXIF blocks must not be a million lines
            with Image.open(path) as image:
                _refuse_bomb(image)
                return rgb_array(image)
    except Image.DecompressionBombError as error:
        raise BrokenImage(f"decompression bomb: {error}") from error
    except _DECODING_ERRORS as error:
        raise BrokenImage(_reason(error)) from error


def rgb_array(image: Image.Image) -> np.ndarray:
    """RGB uint8 [h, w, 3], upright, of a PIL image in any mode; BrokenImage where that fails."""
    image.load()
    image = _upright(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = _grey_8bit(np.asarray(image), image.mode)
        return np.repeat(grey[:, :, None], 3, axis=2)  # [h, w, 3]
    pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    if pixels.size == 0:
        raise BrokenImage(f"has no pixels ({pixels.shape[1]} x {pixels.shape[0]})")
    return pixels


def _refuse_bomb(image: Image.Image) -> None:
    # PIL warns from MAX_IMAGE_PIXELS on and raises from twice that; for us both are refused.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        size = f"{image.width} x {image.height}"
        raise BrokenImage(f"decompression bomb: {size} pixels, limit {limit}")


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = ImageOps.exif_transpose(image)
    except _DECODING_ERRORS:
        return image  # a malformed EXIF block says nothing about the orientation
    return image if turned is None else turned


def _grey_8bit(values: np.ndarray, mode: str) -> np.ndarray:
    """uint8 of one channel of 16-bit, 32-bit or float values, [h, w]."""
    if mode != "F" and values.min() >= 0 and values.max() <= 65535:
        scaled = (values.astype(np.int64) + 128) // 257
        return scaled.astype(np.uint8)
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        raise BrokenImage("has no finite pixel")
    low, high = float(finite.min()), float(finite.max())
    if mode == "F" and low >= 0 and high <= 255:  # two conventions: [0, 1] and [0, 255]
        low, high = 0.0, (1.0 if high <= 1 else 255.0)
    filled = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    stretched: np.ndarray = np.rint((filled - low) * (255 / ((high - low) or 1.0)))
    return stretched.astype(np.uint8)


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = " ".join(str(error).split())
    return text[:120] or type(error).__name__
