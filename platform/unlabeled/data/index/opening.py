"""The bytes of an entry: which files may be opened, and members of shards by byte range.

An index may come from anywhere, so what it names is opened only below folders that were allowed,
wherever links lead. A member is read together with the tar header before it, which must be the one
that was indexed: a shard that was cut or written anew since then gives errors, never other images.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable

from unlabeled.data.decode import BrokenImage
from unlabeled.data.index.layout import Kind
from unlabeled.data.index.open_file import OpenFile
from unlabeled.data.index.reader import Container, Entry
from unlabeled.data.index.remote_files import Fetching, RemoteFiles, is_remote
from unlabeled.data.index.shard_records import MAX_MEMBER_BYTES
from unlabeled.data.index.tar_headers import BLOCK, mark_of

logger = logging.getLogger(__name__)

OPEN_SHARDS = 64
NAMED_SHARDS = 5
MAX_OFFSET = 1 << 62
"""Where no file reaches; the system takes no place beyond 2^63."""


class Roots:
    """The folders, and beginnings of URLs, below which files may be opened."""

    def __init__(self, folders: Iterable[bytes], *, anywhere: bool) -> None:
        self._folders = [f if is_remote(f) else os.path.realpath(f) for f in folders]
        self._anywhere = anywhere

    def resolve(self, path: bytes) -> bytes:
        """The real path, or the URL as it is; BrokenImage where it may not be opened."""
        if b"\0" in path:
            raise BrokenImage("its path has a null byte")
        if self._anywhere:
            return path
        if is_remote(path) and b".." in re.split(rb"[/\\?#]", path.lower().replace(b"%2e", b".")):
            raise BrokenImage("its address leads out of its folder")
        real = path if is_remote(path) else os.path.realpath(path)
        if not self.hold(real):
            raise BrokenImage(
                f"leads to {os.fsdecode(real)}, which lies outside of the allowed folders; add "
                "one that it lies in to dataset.roots"
            )
        return real

    def hold(self, real: bytes) -> bool:
        """Whether a real path is one of the folders or lies below one."""
        return self._anywhere or any(_is_below(real, folder) for folder in self._folders)

    def touch(self, real: bytes) -> bool:
        """Whether something below a folder may be opened: it lies in a root, or a root in it."""
        return self.hold(real) or any(_is_below(folder, real) for folder in self._folders)


def _is_below(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


class Opener:
    """Finds the files of entries and reads members; any number of threads may share it.

    At most OPEN_SHARDS shards stay open. A forked process goes on with those that were open: reads
    name their place, so they share no position.
    """

    def __init__(self, base: bytes, roots: Roots, fetching: Fetching | None = None) -> None:
        self._base, self._roots = base, roots
        self._fetching = fetching or Fetching()
        self._remote = RemoteFiles(self._fetching)
        self._open: OrderedDict[bytes, OpenFile] = OrderedDict()
        self._changed: set[bytes] = set()
        self._lock = threading.Lock()

    def file_path(self, container: Container, entry: Entry) -> bytes:
        """Where the file of an entry lies; BrokenImage where it may not be opened."""
        name = entry.name
        if name.startswith(b"/") or b".." in name.split(b"/"):
            raise BrokenImage("its name leads out of its folder")
        return self._roots.resolve(container.located(self._base, name))

    def member(self, container: Container, entry: Entry) -> bytes:
        """The bytes of a member of a shard; BrokenImage if they are not those that were indexed."""
        if entry.length > MAX_MEMBER_BYTES or not BLOCK <= entry.offset <= MAX_OFFSET:
            raise BrokenImage(f"is no member of a shard: {entry.length} bytes at {entry.offset}")
        try:
            data = self._bytes(container, entry.offset - BLOCK, BLOCK + entry.length)
        except OSError as error:
            raise BrokenImage((error.strerror or str(error)).lower()) from error
        if len(data) >= BLOCK and mark_of(data[:BLOCK]) != entry.mark:
            raise BrokenImage("the shard has been written anew since it was indexed")
        if len(data) < BLOCK + entry.length:
            raise BrokenImage("the shard ends before it")
        return data[BLOCK:]

    def content(self, container: Container, entry: Entry) -> bytes:
        """The bytes of any entry, at most MAX_MEMBER_BYTES; BrokenImage if they cannot be read."""
        if container.kind == Kind.SHARD:
            return self.member(container, entry)
        path = self.file_path(container, entry)
        try:
            if is_remote(path):
                return self._remote.read(os.fsdecode(path), at_most=MAX_MEMBER_BYTES)
            file = OpenFile(path)
            if not 0 < file.size <= MAX_MEMBER_BYTES:
                raise BrokenImage(f"it has {file.size} bytes")
            return file.read(0, file.size)
        except OSError as error:
            raise BrokenImage((error.strerror or str(error)).lower()) from error

    def _bytes(self, container: Container, start: int, length: int) -> bytes:
        """Bytes of a shard, fewer only where it ends."""
        if self._fetching.ranges and is_remote(container.path):
            url = os.fsdecode(self._roots.resolve(container.path))
            return self._remote.read_range(url, start, length)
        return self._shard(container).read(start, length)

    def _shard(self, container: Container) -> OpenFile:
        with self._lock:
            shard = self._open.get(container.path)
            if shard is not None:
                self._open.move_to_end(container.path)
                return shard
        path = self._roots.resolve(container.located(self._base))
        if is_remote(path):  # an open copy takes room on the disk after the cache removed it
            shard = self._remote.open(os.fsdecode(path))
            self._compare(container, shard)
            return shard
        shard = OpenFile(path)
        self._compare(container, shard)
        with self._lock:
            self._open[container.path] = shard
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        return shard

    def _compare(self, container: Container, shard: OpenFile) -> None:
        """Say it once if a shard is not as it was when it was indexed."""
        status = os.fstat(shard.number)
        # What is far away has no time, and its copy's says nothing.
        mtime_ns = status.st_mtime_ns if container.mtime_ns else 0
        changed = (status.st_size, mtime_ns) != (container.size, container.mtime_ns)
        if changed and container.path not in self._changed and len(self._changed) < NAMED_SHARDS:
            self._changed.add(container.path)
            logger.warning(
                "%s has changed since it was indexed (it had %d bytes and has %d): what does not "
                "fit the index is left out; `unlabeled index check` names all such shards",
                *(os.fsdecode(container.path), container.size, status.st_size),
            )


def container_problem(container: Container, base: bytes, roots: Roots) -> str | None:
    """Why nothing of a container can be opened; None if something can."""
    real = container.located(base)
    real = real if is_remote(real) else os.path.realpath(real)
    may = roots.touch(real) if container.kind == Kind.FOLDER else roots.hold(real)
    return None if may else os.fsdecode(real)
