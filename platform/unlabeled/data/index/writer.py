"""Writes the files of an index from records in their final order, with bounded memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from unlabeled.data.index.layout import (
    CLASSES,
    CONTAINER,
    CONTAINERS,
    ENTRIES,
    ENTRY,
    LABEL_TYPE,
    LABELS,
    NAMES,
    NO_LABEL,
    FileMark,
    Header,
)
from unlabeled.data.index.records import Record
from unlabeled.errors import DataError, EnvironmentProblem

BUFFER_BYTES = 1 << 20


class Column:
    """A file that is only appended to, and its checksum."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("wb", buffering=0)
        self._digest, self._buffer = hashlib.sha256(), bytearray()
        self.bytes = 0

    def append(self, data: bytes) -> None:
        """Put it behind what is there."""
        self._buffer += data
        self.bytes += len(data)
        if len(self._buffer) >= BUFFER_BYTES:
            self._flush(self._file)

    def close(self) -> FileMark:
        """Flush to the disk; what a header says of the file."""
        self._flush(self._file)
        os.fsync(self._file.fileno())
        self._file.close()
        return FileMark(self.bytes, self._digest.hexdigest())

    def _flush(self, file: BinaryIO) -> None:
        self._digest.update(self._buffer)
        view = memoryview(self._buffer)
        while len(view):  # an unbuffered file may write less than it is given
            view = view[file.write(view) :]
        self._buffer = bytearray()


class IndexWriter:
    """The columns of an index on their way to the disk.

    base: paths of containers below it are written relative to it, so that an index may travel with
    its images; classes: names of the labels, in the order of their numbers. The containers' paths
    are held in memory, not the entries'.
    """

    def __init__(self, folder: Path, *, base: bytes, classes: tuple[str, ...]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._base = folder, base.rstrip(b"/") + b"/"
        self._entries, self._names = Column(folder / ENTRIES), Column(folder / NAMES)
        self._containers = Column(folder / CONTAINERS)
        self._labels = Column(folder / LABELS) if classes else None
        self._classes = classes
        self._numbers: Mapping[bytes, int] = {
            name.encode("utf-8", "surrogateescape"): number for number, name in enumerate(classes)
        }
        self._seen: dict[bytes, int] = {}
        self.count = self._labelled = 0

    def add(self, record: Record) -> None:
        """The next entry."""
        container = self._container(record)
        name = record.name
        start, offset = self._names.bytes, max(record.offset, 0)
        self._names.append(name)
        packed = (start, offset, record.length, container, len(name), record.mark)
        self._entries.append(ENTRY.pack(*packed))
        if self._labels is not None:
            number = self._numbers[record.label] if record.label else NO_LABEL
            self._labelled += number != NO_LABEL
            self._labels.append(LABEL_TYPE.type(number).tobytes())
        self.count += 1

    def close(self, *, built_from: str, problems: Mapping[str, int]) -> Header:
        """Finish all files, the header last."""
        columns = {ENTRIES: self._entries, NAMES: self._names, CONTAINERS: self._containers}
        if self._labels is not None:
            columns[LABELS] = self._labels
            columns[CLASSES] = Column(self._folder / CLASSES)
            columns[CLASSES].append(json.dumps(self._classes).encode())
        header = Header(
            entries=self.count,
            containers=len(self._seen),
            labelled=self._labelled,
            files={name: column.close() for name, column in columns.items()},
            built_from=built_from,
            problems=dict(problems),
        )
        header.write(self._folder)
        return header

    def _container(self, record: Record) -> int:
        path = record.path[: record.container_length] or b"/"
        number = self._seen.get(path)
        if number is None:
            number = self._seen[path] = len(self._seen)
            written = path.removeprefix(self._base) or path
            start, stamp = self._names.bytes, (record.size, record.mtime_ns)
            self._names.append(written)
            self._containers.append(CONTAINER.pack(start, len(written), record.kind, *stamp))
        return number


def write_index(
    folder: Path,
    records: Iterable[Record],
    *,
    base: bytes,
    classes: tuple[str, ...],
    built_from: str = "",
    problems: Mapping[str, int],
) -> Header:
    """All files of an index; `problems` is read when the records have been. DataError for none."""
    try:
        writer = IndexWriter(folder, base=base, classes=classes)
        for record in records:
            writer.add(record)
        if not writer.count:
            raise DataError("no images were found in what was given")
        return writer.close(built_from=built_from, problems=problems)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {folder}: {error.strerror}") from error
