"""Millions of paths in two arrays: no Python object per path, cheap to hand to worker processes."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np


class PathList:
    """An immutable sequence of paths: their bytes end to end, and where each one ends.

    A path of 40 bytes takes 48, where a list of str takes 97, and forked workers do not copy its
    page by counting references. Names that are not valid UTF-8 survive.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        buffer = bytearray()
        ends = [0]
        for path in paths:
            buffer += os.fsencode(path)
            ends.append(len(buffer))
        self._bytes = np.frombuffer(bytes(buffer), dtype=np.uint8)
        self._ends = np.array(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        """The path at an index in range(len)."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return os.fsdecode(self._bytes[self._ends[index] : self._ends[index + 1]].tobytes())
