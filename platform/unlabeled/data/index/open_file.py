"""A file that many threads and forked processes read at places they name."""

from __future__ import annotations

import os
from typing import BinaryIO


class OpenFile:
    """An open file without a position; closed when nobody holds it any more.

    Opening never waits, not for a writer of a pipe either. OSError as from the system.
    """

    def __init__(self, path: str | bytes | os.PathLike[str]) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))

    def read(self, start: int, length: int) -> bytes:
        """The bytes from `start` on, fewer than `length` only where the file ends."""
        data = os.pread(self.number, length, start)
        while 0 < len(data) < length:  # a signal or a network file system may cut a read short
            more = os.pread(self.number, length - len(data), start + len(data))
            if not more:
                break
            data += more
        return data

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self.number).st_size

    def stream(self) -> BinaryIO:
        """The file as a stream with a position of its own, at its beginning."""
        return open(f"/dev/fd/{self.number}", "rb")

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)
