"""What an image that cannot be decoded raises, and in which words."""

from __future__ import annotations

import struct
import zlib

from PIL import UnidentifiedImageError

# What PIL's format plugins raise on malformed bytes.
DECODING_ERRORS = (
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


def reason(error: BaseException) -> str:
    """At most 120 characters that say what went wrong, without the file's path."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = " ".join(str(error).split())
    return text[:120] or type(error).__name__
