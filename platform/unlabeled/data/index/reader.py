"""An index on disk as a sequence: opening it reads the header, a look-up a record and a name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unlabeled.data.index.layout import (
    CLASSES,
    CONTAINER,
    CONTAINERS,
    ENTRIES,
    ENTRY,
    LABEL_TYPE,
    LABELS,
    NAMES,
    Header,
    Kind,
    read_header,
)
from unlabeled.data.index.open_file import OpenFile
from unlabeled.data.index.remote_files import is_remote
from unlabeled.errors import DataError

CONTAINERS_HELD = 4096
# Linux has no longer paths than 4096 bytes; members of archives may be called anything.
MAX_NAME_BYTES = 1 << 20


class Container(NamedTuple):
    """A folder or a shard: its path (absolute, or relative to the folder the index lies in)."""

    path: bytes
    kind: Kind
    size: int
    mtime_ns: int

    def located(self, base: bytes, *below: bytes) -> bytes:
        """The path of the container, or of something below it; `base` is the index's folder."""
        if is_remote(self.path):
            return b"/".join((self.path.rstrip(b"/"), *below))
        return os.path.join(base, self.path, *below)


class Entry(NamedTuple):
    """Where an image is: a file below a folder, or bytes of a shard."""

    container: int
    name: bytes
    """Below the folder, or the member's name."""
    offset: int
    length: int
    """UNKNOWN for files whose size nobody asked for."""
    mark: int
    """CRC-32 of the member's tar header; 0 for files."""


class Index:
    """The entries of an index, by place; nothing of them is held in memory.

    A look-up is two short reads, so that memory stays the same for any number of entries: a map of
    10^9 of them would cost a process 100 MB of page tables, and the faults more time than the
    reads. Any number of threads may share an index, and forked processes go on with it. DataError:
    no index, or a damaged one; what it says is not trusted, and a record that points outside of
    its files is a DataError too.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self.header: Header = read_header(self.path)
        self._entries, self._names, self._containers = (
            _open(self.path / name) for name in (ENTRIES, NAMES, CONTAINERS)
        )
        self._names_end = self.header.files[NAMES].bytes
        self._seen: dict[int, Container] = {}

    def __len__(self) -> int:
        return self.header.entries

    @property
    def base(self) -> bytes:
        """The folder that the index lies in: where relative containers start."""
        return os.path.dirname(os.path.realpath(os.fsencode(self.path)))

    def entry(self, place: int) -> Entry:
        """The entry at a place in range(len)."""
        if not 0 <= place < self.header.entries:
            raise IndexError(place)
        record = self._entries.read(place * ENTRY.size, ENTRY.size)
        if len(record) == ENTRY.size:
            start, offset, length, container, name_length, mark = ENTRY.unpack(record)
            name = self._name(start, name_length)
            if name and container < self.header.containers:
                return Entry(container, name, offset, length, mark)
        raise DataError(f"{self.path}: record {place} is damaged; build the index again")

    def container(self, number: int) -> Container:
        """A folder or shard, by the number that entries give."""
        found = self._seen.get(number)
        if found is None:
            found = self._read_container(number)
            if len(self._seen) >= CONTAINERS_HELD:
                self._seen.clear()
            self._seen[number] = found
        return found

    def _read_container(self, number: int) -> Container:
        if not 0 <= number < self.header.containers:
            raise IndexError(number)
        record = self._containers.read(number * CONTAINER.size, CONTAINER.size)
        if len(record) == CONTAINER.size:
            start, length, kind, size, mtime_ns = CONTAINER.unpack(record)
            path = self._name(start, length)
            if path and kind in (Kind.FOLDER, Kind.SHARD):
                return Container(path, Kind(kind), size, mtime_ns)
        raise DataError(f"{self.path}: container {number} is damaged; build the index again")

    def _name(self, start: int, length: int) -> bytes | None:
        """A name; None where there cannot be one."""
        if not 0 < length <= MAX_NAME_BYTES or start > self._names_end - length:
            return None
        name = self._names.read(start, length)
        return name if len(name) == length else None

    def labels(self) -> np.ndarray | None:
        """Int64 [N], mapped from the disk and read-only, -1 where there is none; or None."""
        if not self.header.labelled:
            return None
        return np.memmap(self.path / LABELS, LABEL_TYPE, mode="r", shape=(len(self),))

    def classes(self) -> tuple[str, ...]:
        """Names of the classes; those are held in memory."""
        if not self.header.labelled:
            return ()
        try:
            names = json.loads((self.path / CLASSES).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"cannot read {self.path / CLASSES}: {error}") from error
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{self.path / CLASSES} is no list of names")
        return tuple(names)

    def __reduce__(self) -> tuple[type[Index], tuple[Path]]:
        return type(self), (self.path,)


def _open(path: Path) -> OpenFile:
    try:
        return OpenFile(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
