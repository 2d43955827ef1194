"""What a build sorts: records of images in runs on disk, merged with bounded memory."""

from __future__ import annotations

import heapq
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from unlabeled.data.index.layout import Kind
from unlabeled.data.whole_files import write_file
from unlabeled.errors import DataError

# About 40 MB of records in memory, per process.
RECORDS_IN_MEMORY = 100_000
# Open files of a merge; more runs are merged in several passes.
FAN_IN = 128
FILE = -1
"""The offset of what is a file of its own; it sorts before the members of a shard."""
MAX_LABEL_BYTES = 1024
"""Longer ones name no class; those of all classes are held in memory."""
_FRAME = struct.Struct("<IIIIIIqqq")


class Record(NamedTuple):
    """An image on its way into the index; records are sorted by (path, offset)."""

    path: bytes
    """Absolute: of the file, or of the shard."""
    offset: int
    """Of the data in the shard; FILE for a file."""
    container_length: int
    """How many bytes of `path` are the container: the folder, or all of a shard's."""
    length: int
    mark: int
    member: bytes
    """Name in the shard; empty for a file."""
    label: bytes
    """Empty: none."""
    size: int
    mtime_ns: int
    """Of the shard."""

    @property
    def kind(self) -> Kind:
        """What the container is."""
        return Kind.FOLDER if self.offset == FILE else Kind.SHARD

    @property
    def name(self) -> bytes:
        """Below the container."""
        return (
            self.path[self.container_length :].lstrip(b"/") if self.offset == FILE else self.member
        )


class Problem(NamedTuple):
    """Something that was left out: its kind (which is counted), its name and why."""

    kind: str
    name: str
    reason: str


Noted = Callable[[Problem], None]


def place(record: Record) -> tuple[bytes, int]:
    """What makes two records the same image, and orders them."""
    return record.path, record.offset


class RunWriter:
    """Writes records, in whatever order they come, as sorted files of bounded size."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._records: list[Record] = []
        self.runs: list[str] = []
        self.count = 0

    def add(self, record: Record) -> None:
        """Take in one record."""
        self._records.append(record)
        self.count += 1
        if len(self._records) >= RECORDS_IN_MEMORY:
            self.flush()

    def flush(self) -> None:
        """Sort and write what is in memory."""
        if self._records:
            self._records.sort(key=place)
            run = f"{self._name}.{len(self.runs)}.run"
            write_run(self._folder / run, self._records)
            self.runs.append(run)
            self._records = []


def write_run(path: Path, records: Iterable[Record]) -> None:
    """A file of records; there as a whole or not at all."""

    def write(file: object) -> None:
        for record in records:
            file.write(_frame(record))  # type: ignore[attr-defined]

    write_file(path, write)


def _frame(record: Record) -> bytes:
    path, offset, container_length, length, mark, member, label, size, mtime_ns = record
    numbers = (len(path), len(member), len(label), container_length, length, mark)
    return _FRAME.pack(*numbers, offset, size, mtime_ns) + path + member + label


def read_run(path: Path) -> Iterator[Record]:
    """The records of a file, in order."""
    with path.open("rb", buffering=1 << 15) as file:
        while frame := file.read(_FRAME.size):
            if len(frame) < _FRAME.size:
                raise DataError(f"{path} is cut short; start the build afresh")
            path_n, member_n, label_n, container, length, mark, offset, size, mtime = _FRAME.unpack(
                frame
            )
            text = file.read(path_n + member_n + label_n)
            member, label = text[path_n : path_n + member_n], text[path_n + member_n :]
            yield Record(text[:path_n], offset, container, length, mark, member, label, size, mtime)


def merged(folder: Path, runs: Sequence[str]) -> Iterator[Record]:
    """The records of sorted runs as one sorted sequence; of equal places the earlier run's first.

    At most FAN_IN files are open and one record of each is in memory. Where there are more, runs
    are merged group by group into larger ones, which a build that is started again finds done.
    """
    level = 0
    while len(runs) > FAN_IN:
        larger = []
        for first in range(0, len(runs), FAN_IN):
            run = f"merged-{level}-{first}.run"
            if not (folder / run).exists():
                write_run(folder / run, _merge(folder, runs[first : first + FAN_IN]))
            larger.append(run)
        runs, level = larger, level + 1
    return _merge(folder, runs)


def _merge(folder: Path, runs: Sequence[str]) -> Iterator[Record]:
    return heapq.merge(*(read_run(folder / run) for run in runs), key=place)


def unique(records: Iterable[Record], noted: Noted) -> Iterator[Record]:
    """Sorted records, one per place: the first that has a label, or else the first."""
    chosen: Record | None = None
    for record in records:
        if chosen is None or place(record) != place(chosen):
            if chosen is not None:
                yield chosen
            chosen = record
            continue
        noted(Problem("duplicate", shown(chosen), "given more than once"))
        if not chosen.label:
            chosen = record
        elif record.label not in (b"", chosen.label):
            labels = f"{os.fsdecode(chosen.label)} and {os.fsdecode(record.label)}"
            noted(Problem("two labels", shown(chosen), f"{labels}; the first is kept"))
    if chosen is not None:
        yield chosen


def shown(record: Record) -> str:
    """What a person would call it."""
    path = os.fsdecode(record.path)
    return f"{path}/{os.fsdecode(record.member)}" if record.member else path
