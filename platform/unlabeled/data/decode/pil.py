"""Every format and every mode that PIL knows, but those that are programs."""

from __future__ import annotations

import warnings
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

from unlabeled.data.decode.broken import DECODING_ERRORS, BrokenImage, reason
from unlabeled.data.decode.sizes import dct_shrink, refuse_bomb

PROGRAMS = ("EPS", "IPTC")
"""PostScript, which PIL has Ghostscript run, and what may hold any format, PostScript too."""


def decode_pil(file: IO[bytes], at_least: int | None) -> np.ndarray:
    """RGB uint8 [h, w, 3], upright, of an open file; BrokenImage if it cannot be decoded."""
    _ignore_warnings()
    try:
        with Image.open(file) as image:
            if image.format in PROGRAMS:
                raise BrokenImage(f"{image.format} is or may hold a program, which is not run")
            refuse_bomb(image.width, image.height)
            shrink = dct_shrink(image.width, image.height, at_least)
            if shrink > 1:  # which only JPEGs heed
                image.draft(None, (image.width // shrink, image.height // shrink))
            return rgb_array(image)
    except Image.DecompressionBombError as error:
        raise BrokenImage(f"decompression bomb: {error}") from error
    except DECODING_ERRORS as error:
        raise BrokenImage(reason(error)) from error


def rgb_array(image: Image.Image) -> np.ndarray:
    """RGB uint8 [h, w, 3], upright, of a PIL image in any mode; BrokenImage where that fails."""
    image.load()
    image = _upright(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        with np.errstate(invalid="ignore"):  # of signalling NaNs, which damaged files may hold
            grey = _grey_8bit(np.asarray(image), image.mode)
        return np.repeat(grey[:, :, None], 3, axis=2)  # [h, w, 3]
    pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    if pixels.size == 0:
        raise BrokenImage(f"has no pixels ({pixels.shape[1]} x {pixels.shape[0]})")
    return pixels


def _ignore_warnings() -> None:
    """PIL warns of every odd EXIF block, and a million of them must not be a million lines.

    The filter stays: to take it back after each image would swap a list that all threads share.
    """
    global _filter
    if not warnings.filters or warnings.filters[0] is not _filter:
        warnings.filterwarnings("ignore", module=r"PIL\.")
        _filter = warnings.filters[0]


_filter: Any = None


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = ImageOps.exif_transpose(image)
    except DECODING_ERRORS:
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
