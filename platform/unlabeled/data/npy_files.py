"""Arrays that others wrote: .npy files, read as data."""

from __future__ import annotations

import tokenize
from pathlib import Path

import numpy as np

from unlabeled.errors import DataError

MAGIC = b"\x93NUMPY"


def map_array(path: Path) -> np.ndarray:
    """The array of a .npy file, memory-mapped and read-only.

    DataError for what cannot be read, is damaged, cut short or of another sort. The file's length
    is checked against the shape before any memory is taken, and no object of Python is made.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise DataError(f"cannot read {path}: it is no .npy file")
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (
        OSError,
        ValueError,
        EOFError,
        OverflowError,
        SyntaxError,
        TypeError,
        tokenize.TokenError,
    ) as error:  # what numpy raises on damaged headers, found by trying
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"cannot read {path}: {reason}") from error
    return array
