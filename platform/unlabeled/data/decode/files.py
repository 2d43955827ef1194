"""The two ways in: a path, or the bytes that a source has read itself."""

from __future__ import annotations

import io
import os
import stat

import numpy as np

from unlabeled.data.decode.broken import DECODING_ERRORS, BrokenImage, reason
from unlabeled.data.decode.jpeg_header import plain_jpeg_size
from unlabeled.data.decode.pil import decode_pil
from unlabeled.data.decode.sizes import dct_shrink, refuse_bomb
from unlabeled.data.decode.turbo import decode_turbo

# Larger files are read piece by piece as PIL asks for them: what claims to be an image may be an
# archive of a terabyte. A JPEG of this size has more pixels than are allowed, or is no photograph.
READ_WHOLE_BYTES = 1 << 26


def decode_file(path: str | os.PathLike[str], *, at_least: int | None = None) -> np.ndarray:
    """RGB uint8 [h, w, 3] of an image file; BrokenImage if it cannot be read or decoded.

    The format is what the content says, not the name. For `at_least` see decode_bytes.
    """
    try:
        with open(path, "rb", buffering=0, opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BrokenImage("not a regular file")
            if status.st_size > READ_WHOLE_BYTES:
                with io.BufferedReader(file) as buffered:
                    return decode_pil(buffered, at_least)
            data = file.readall()
    except DECODING_ERRORS as error:
        raise BrokenImage(reason(error)) from error
    return decode_bytes(data, at_least=at_least)


def decode_bytes(
    data: bytes | bytearray | memoryview, *, at_least: int | None = None
) -> np.ndarray:
    """RGB uint8 [h, w, 3] of an image file's content; BrokenImage if it cannot be decoded.

    An image of too many pixels is refused by what its header says, before any is decoded.

    at_least: with None, every pixel, and those of PIL bit for bit (as far as PIL's libjpeg is a
    libjpeg-turbo). With a number, a JPEG both sides of which exceed 1000 pixels is decoded at 1/8,
    1/4 or 1/2 of its size, the smallest that leaves the shorter side at least that long. That takes
    half the time and is not bit-equal to decoding everything and resizing.
    """
    if not isinstance(data, bytes):
        data = memoryview(data).cast("B")
    try:
        size = plain_jpeg_size(data)
        if size is not None:
            refuse_bomb(*size)
            pixels = decode_turbo(data, *size, dct_shrink(*size, at_least))
            if pixels is not None:
                return pixels
        return decode_pil(io.BytesIO(data), at_least)
    except MemoryError as error:
        raise BrokenImage(reason(error)) from error


def _open_at_once(path: str, flags: int) -> int:
    # Without the flag (Windows has none), opening a named pipe waits for somebody to write.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
