"""JPEGs through simplejpeg, where it can be imported: libjpeg-turbo without PIL around it."""

from __future__ import annotations

import functools
from types import ModuleType

import numpy as np

from unlabeled.data.decode.jpeg_header import Bytes
from unlabeled.data.decode.sizes import shrunk


def decode_turbo(data: Bytes, width: int, height: int, shrink: int) -> np.ndarray | None:
    """RGB uint8 [ceil(height / shrink), ceil(width / shrink), 3] of a plain JPEG, or None.

    None where simplejpeg is not installed and where libjpeg-turbo fails or as much as warns: it
    would fill what a truncated file lacks with grey. The interpreter's lock is released.
    """
    library = _simplejpeg()
    if library is None:
        return None
    rows, columns = shrunk(height, shrink), shrunk(width, shrink)
    try:
        # The smallest of libjpeg-turbo's scales that gives at least as many pixels: this one.
        pixels: np.ndarray = library.decode_jpeg(
            data, min_height=rows, min_width=columns, strict=True
        )
    except (ValueError, RuntimeError):
        return None
    return pixels if pixels.shape == (rows, columns, 3) else None


@functools.cache
def _simplejpeg() -> ModuleType | None:
    try:
        import simplejpeg
    except ImportError:
        return None
    module: ModuleType = simplejpeg
    return module
