"""Files of object stores and web servers, through iopath's PathManager and a bounded local cache.

Schemes are handlers of the PathManager called "unlabeled". It knows http:// and https://; others
are registered by a plugin:

    from iopath.common.file_io import PathManagerFactory
    PathManagerFactory.get("unlabeled").register_handler(S3PathHandler())

A handler's `open(url, "rb")` gives a stream, and says by an OSError what failed. Where files are
read by byte range, the stream also has `seek`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from iopath.common.file_io import PathManager, PathManagerFactory

from unlabeled.data.index.fetching import Final, Stream, fetch
from unlabeled.data.index.open_file import OpenFile
from unlabeled.data.index.web import Web

MANAGER = "unlabeled"
# A file that could not be fetched is not asked for again at once: a thousand images may lie in it.
REFUSE_SECONDS = 60.0


def is_remote(path: str | bytes) -> bool:
    """Whether a path begins with a scheme, like https://."""
    text = os.fsdecode(path)
    scheme, found, _ = text.partition("://")
    return bool(found) and scheme.replace("+", "").replace("-", "").isalnum()


@cache
def manager() -> PathManager:
    """The PathManager whose handlers are used."""
    found = PathManagerFactory.get(MANAGER)
    if not _knows(found, "https://"):
        found.register_handler(Web())
    return found


@dataclass(frozen=True)
class Fetching:
    """How remote files are fetched, and how many are kept."""

    cache: str | None = None
    """Folder of the copies; null: one of this user's in the system's temporary folder."""
    cache_gb: float = 20.0
    """Copies beyond it are removed, the one used longest ago first; one is always kept."""
    stall_seconds: float = 60.0
    attempts: int = 5
    ranges: bool = False
    """Whether members of shards are fetched one by one, instead of a copy of the shard."""

    @property
    def folder(self) -> Path:
        """Where the copies are; a folder that is only this user's."""
        if self.cache is not None:
            return Path(self.cache).expanduser()
        return Path(tempfile.gettempdir()) / f"unlabeled-remote-{os.getuid()}"


class RemoteFiles:
    """Local copies of remote files; processes of a machine share them."""

    def __init__(self, fetching: Fetching, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetching, self._clock = fetching, clock
        self._refused: dict[str, tuple[float, OSError]] = {}

    def open(self, url: str) -> OpenFile:
        """The copy, fetched if there is none; OSError if that fails.

        A copy that is removed while it is open can still be read.
        """
        self._check_refused(url)
        folder = self._fetching.folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _refuse_strangers(folder)
        copy = folder / hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()
        with contextlib.suppress(FileNotFoundError):
            return _used(copy)
        with _alone(copy):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                return _used(copy)
            try:
                self._fetch(url, copy)
            except OSError as error:
                self._refuse(url, error)
                raise
            opened = _used(copy)
        self._make_room(copy)
        return opened

    def read(self, url: str, *, at_most: int) -> bytes:
        """The bytes of a file that is not kept; OSError if that fails, or if there are more."""
        return self._gathered(url, lambda: _stream(url), at_most)

    def read_range(self, url: str, start: int, length: int) -> bytes:
        """Some bytes of a file, fewer only where it ends; OSError if they cannot be fetched."""
        self._check_refused(url)
        try:
            return self._gathered(url, lambda: _Range(_stream(url), start, length), length)
        except OSError as error:
            self._refuse(url, error)
            raise

    def _gathered(self, url: str, open_stream: Callable[[], Stream], at_most: int) -> bytes:
        data = bytearray()

        def write(chunk_of: Callable[[], bytes]) -> None:
            data.clear()
            while chunk := chunk_of():
                data.extend(chunk)
                if len(data) > at_most:
                    raise Final(f"it has more than {at_most} bytes")

        self._try(url, open_stream, write)
        return bytes(data)

    def _fetch(self, url: str, copy: Path) -> None:
        part = copy.with_suffix(".part")

        def write(chunk_of: Callable[[], bytes]) -> None:
            with part.open("wb") as file:
                while chunk := chunk_of():
                    file.write(chunk)

        try:
            self._try(url, lambda: _stream(url), write)
            part.replace(copy)
        finally:
            part.unlink(missing_ok=True)

    def _refuse(self, url: str, error: OSError) -> None:
        """Do not ask for a file again for a while."""
        self._refused[url] = (self._clock() + REFUSE_SECONDS, error)

    def _check_refused(self, url: str) -> None:
        """The same failure again, where it was not long ago."""
        until, error = self._refused.get(url, (0.0, None))
        if error is not None and self._clock() < until:
            raise (Final if isinstance(error, Final) else OSError)(str(error))

    def _try(
        self,
        url: str,
        open_stream: Callable[[], Stream],
        write: Callable[[Callable[[], bytes]], None],
    ) -> None:
        fetch(
            open_stream,
            write,
            name=url,
            attempts=self._fetching.attempts,
            stall_seconds=self._fetching.stall_seconds,
        )

    def _make_room(self, newest: Path) -> None:
        """Remove copies, the one used longest ago first, until the others fit."""
        found = []
        for path in newest.parent.iterdir():
            if not path.suffix and path != newest:
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    found.append((status.st_mtime_ns, status.st_size, path))
        total = newest.stat().st_size if newest.exists() else 0
        for _, size, path in sorted(found, reverse=True):  # the one used last is kept first
            total += size
            if total > self._fetching.cache_gb * 1e9:
                path.unlink(missing_ok=True)


class _Range:
    """A part of a stream that can be sought."""

    def __init__(self, stream: Stream, start: int, length: int) -> None:
        seek = getattr(stream, "seek", None)
        if seek is None:
            stream.close()
            raise Final("its handler gives streams without seek; use dataset.remote=copy")
        self._stream, self._left = stream, length
        self.close = stream.close
        seek(start)

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(min(size, self._left)) if self._left else b""
        self._left -= len(data)
        return data


def _refuse_strangers(folder: Path) -> None:
    """OSError where somebody else could put copies: anybody may make a temporary folder first."""
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & stat.S_IWOTH:
        raise OSError(f"{folder} belongs to others, or they may write there; give another as cache")


def _stream(url: str) -> Stream:
    found = manager()
    if not _knows(found, url):  # iopath would look for a local file of that name
        scheme = url.partition("://")[0]
        raise Final(f"nothing is registered that reads {scheme}://; a plugin may do so")
    try:
        stream: Stream = found.open(url, "rb")
    except (FileNotFoundError, PermissionError) as error:
        raise Final(str(error)) from error
    return stream


def _knows(found: PathManager, url: str) -> bool:
    """Whether a handler is registered for the beginning of a URL."""
    return any(url.startswith(prefix) for prefix in found._path_handlers)


def _used(copy: Path) -> OpenFile:
    """Open a copy, and remember by its time that it was used."""
    opened = OpenFile(copy)
    with contextlib.suppress(FileNotFoundError):
        os.utime(copy)
    return opened


@contextlib.contextmanager
def _alone(copy: Path) -> Iterator[None]:
    """One process at a time fetches a file; the others wait and find it."""
    with copy.with_suffix(".lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
