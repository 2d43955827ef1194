"""Copying what is far away: a stream that stalls or breaks is given up and tried again."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
CHUNKS_AHEAD = 4
LOOK_SECONDS = 0.2
"""How often a thread whose chunks nobody takes looks whether that will change."""
FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 0.5, 30.0


class Final(OSError):
    """A failure that trying again does not mend: there is no such file, or no permission."""


class Stream(Protocol):
    """What a handler's `open` gives."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> Any: ...


def fetch(
    open_stream: Callable[[], Stream],
    write: Callable[[Callable[[], bytes]], None],
    *,
    name: str,
    attempts: int,
    stall_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Let `write` take all chunks of a stream; from its beginning again after an OSError.

    `write` is given a function that returns the next chunk, and b"" at the end. A stream that
    brings nothing for `stall_seconds` counts as broken. Between attempts it waits 0.5, 1, 2, ...
    seconds, at most 30. The last failure is raised, and a Final one at once.
    """
    for attempt in range(1, attempts + 1):
        chunks = _Chunks(open_stream, stall_seconds)
        try:
            write(chunks)
            return
        except OSError as error:
            if attempt == attempts or isinstance(error, Final):
                raise
            delay = min(FIRST_DELAY_SECONDS * 2 ** (attempt - 1), LONGEST_DELAY_SECONDS)
            logger.warning(
                "%s: %s; attempt %d of %d in %g s", name, error, attempt + 1, attempts, delay
            )
            sleep(delay)
        finally:
            chunks.give_up()


class _Chunks:
    """The chunks of a stream, read by a thread of their own that nobody waits for too long."""

    def __init__(self, open_stream: Callable[[], Stream], stall_seconds: float) -> None:
        self._open, self._stall_seconds = open_stream, stall_seconds
        self._chunks: queue.Queue[bytes | BaseException] = queue.Queue(CHUNKS_AHEAD)
        self._given_up = threading.Event()
        threading.Thread(target=self._read, name="unlabeled-fetch", daemon=True).start()

    def __call__(self) -> bytes:
        try:
            chunk = self._chunks.get(timeout=self._stall_seconds)
        except queue.Empty:
            raise TimeoutError(f"nothing came for {self._stall_seconds:g} s") from None
        if isinstance(chunk, BaseException):
            raise chunk
        return chunk

    def give_up(self) -> None:
        """Nobody takes more: the thread ends as soon as the stream lets it."""
        self._given_up.set()

    def _read(self) -> None:
        try:
            stream = self._open()
            try:
                while self._put(chunk := stream.read(CHUNK_BYTES)) and chunk:
                    pass
            finally:
                stream.close()
        except BaseException as error:  # noqa: BLE001 - raised where the chunk is due
            self._put(error)

    def _put(self, chunk: bytes | BaseException) -> bool:
        """Hand over, unless nobody takes it any more."""
        while not self._given_up.is_set():
            try:
                self._chunks.put(chunk, timeout=LOOK_SECONDS)
                return True
            except queue.Full:
                continue
        return False
