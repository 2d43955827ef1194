"""What an index is built from, one unit of work at a time: folders, lists, tables, shards, indexes.

Nothing here holds more than a line, a sample or the open folders of one path in memory.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from unlabeled.data.index.layout import NO_LABEL, UNKNOWN, Kind
from unlabeled.data.index.reader import Index
from unlabeled.data.index.records import FILE, MAX_LABEL_BYTES, Noted, Problem, Record
from unlabeled.data.index.remote_files import is_remote
from unlabeled.data.index.shard_records import shard_records
from unlabeled.data.npy_files import map_array
from unlabeled.data.sources.folder import EXTENSIONS
from unlabeled.errors import DataError

# Longer lines are neither paths, which Linux refuses from 4096 bytes on, nor rows of them.
MAX_LINE_BYTES = 1 << 16
_EXTENSIONS = tuple(os.fsencode(extension) for extension in EXTENSIONS)


@dataclass(frozen=True)
class Unit:
    """A piece of the inputs that one process reads at a time; its result is kept once it is done.

    source: the folder, list, table or index; root: where relative paths start; items: subfolders of
    a folder, or shards; start and stop: bytes of a list, or places of an array or an index.
    """

    kind: str
    source: str
    root: str
    items: tuple[str, ...] = ()
    start: int = 0
    stop: int = 0
    folder_labels: bool = False
    sizes: bool = False

    def records(self, noted: Noted) -> Iterator[Record]:
        """The images of the unit, in any order; what cannot be used is noted."""
        return READERS[self.kind](self, noted)


def _files_beside(unit: Unit, noted: Noted) -> Iterator[Record]:
    """The images that lie directly in a folder."""
    root = os.fsencode(unit.root)
    with os.scandir(root) as entries:
        for entry in entries:
            if _is_image(entry):
                yield from _file(unit, root, root + b"/" + entry.name, b"", noted)


def _subfolders(unit: Unit, noted: Noted) -> Iterator[Record]:
    """The images at any depth of some subfolders."""
    root = os.fsencode(unit.root)
    status = os.stat(root)
    above = ((status.st_dev, status.st_ino),)
    for item in unit.items:
        first = os.fsencode(item)
        label = first if unit.folder_labels else b""
        for path in _images(root + b"/" + first, above, noted):
            yield from _file(unit, root, path, label, noted)


def _images(folder: bytes, above: tuple[tuple[int, int], ...], noted: Noted) -> Iterator[bytes]:
    try:
        status = os.stat(folder)
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            return  # a link back to a folder that it lies in
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(b"."):
                    continue
                path = folder + b"/" + entry.name
                if _is_folder(entry):
                    yield from _images(path, (*above, identity), noted)
                elif _is_image(entry):
                    yield path
                elif entry.name.endswith(b".tar"):
                    why = "shards are taken from the folder that is named, not from below it"
                    noted(Problem("shard passed over", os.fsdecode(path), why))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        noted(Problem("unreadable folder", os.fsdecode(folder), reason))


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_image(entry: os.DirEntry[bytes]) -> bool:
    """By its name, and no folder; a dangling link counts, so that it is not lost silently."""
    if entry.name.startswith(b"."):
        return False
    return entry.name.lower().endswith(_EXTENSIONS) and not _is_folder(entry)


def _lines(unit: Unit, noted: Noted) -> Iterator[Record]:
    """A text file with one path a line."""
    for _, line in _own_lines(unit, noted):
        if path := line.strip(b"\r\n"):
            yield from _listed(unit, path, b"", noted)


def _own_lines(unit: Unit, noted: Noted) -> Iterator[tuple[int, bytes]]:
    """The lines that begin in the unit's range of bytes, with their first byte; no empty ones."""
    with Path(unit.source).open("rb") as file:
        if unit.start:  # a line that began before belongs to the unit before
            file.seek(unit.start - 1)
            _rest_of_line(file)
        while (begin := file.tell()) < unit.stop:
            line = file.readline(MAX_LINE_BYTES)
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                _rest_of_line(file)
                noted(Problem("unusable line", f"{unit.source}, byte {begin}", "it is too long"))
                continue
            if begin == 0:
                line = line.removeprefix(b"\xef\xbb\xbf")  # the mark of UTF-8
            if line.strip():
                yield begin, line


def _rest_of_line(file: BinaryIO) -> None:
    while len(line := file.readline(MAX_LINE_BYTES)) == MAX_LINE_BYTES:
        if line.endswith(b"\n"):
            return


def _array(unit: Unit, noted: Noted) -> Iterator[Record]:
    """A range of an .npy array of strings."""
    names = map_array(Path(unit.source))[unit.start : unit.stop]
    for name in names:
        yield from _listed(unit, name if isinstance(name, bytes) else str(name), b"", noted)


def _csv(unit: Unit, noted: Noted) -> Iterator[Record]:
    """A table with the columns path and, where they are there, label and size."""
    path = Path(unit.source)
    delimiter = "\t" if path.suffix == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            table = csv.DictReader(file, delimiter=delimiter)
            if "path" not in (table.fieldnames or ()):
                raise DataError(f"{path} has no column `path`; columns are path, label and size")
            for row in table:
                yield from _row(unit, row, f"{path}, line {table.line_num}", noted)
    except csv.Error as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _json_lines(unit: Unit, noted: Noted) -> Iterator[Record]:
    """One JSON object a line, with the keys path and, where they are there, label and size."""
    for begin, line in _own_lines(unit, noted):
        where = f"{unit.source}, byte {begin}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            noted(Problem("unusable row", where, str(error)[:120]))
            continue
        if isinstance(row, dict):
            yield from _row(unit, row, where, noted)
        else:
            noted(Problem("unusable row", where, "it is no object"))


def _row(unit: Unit, row: Mapping[str, Any], where: str, noted: Noted) -> Iterator[Record]:
    path, label, size = row.get("path"), row.get("label"), row.get("size")
    if not isinstance(path, str) or not path:
        noted(Problem("unusable row", where, "it has no path"))
        return
    try:
        length = UNKNOWN if size in (None, "") else min(int(str(size)), UNKNOWN)
        if length < 0:
            raise ValueError("a size is not negative")
    except ValueError:
        noted(Problem("unusable row", where, f"size {str(size)[:40]!r} is no number of bytes"))
        return
    name = ("" if label is None else str(label).strip()).encode("utf-8", "backslashreplace")
    if len(name) > MAX_LABEL_BYTES:
        noted(Problem("unusable row", where, f"no label has {len(name)} bytes"))
    else:
        yield from _listed(unit, path, name, noted, length)


def _listed(
    unit: Unit, given: str | bytes, label: bytes, noted: Noted, length: int = UNKNOWN
) -> Iterator[Record]:
    """The record of a path from a list: below the root if it lies there, else below `/`."""
    try:
        path = os.fsencode(given)
    except UnicodeEncodeError:
        noted(Problem("unusable path", repr(given), "it is no text that a file can be called"))
        return
    if b"\0" in path:
        noted(Problem("unusable path", os.fsdecode(path), "it has a null byte"))
        return
    remote, root = is_remote(path), os.fsencode(unit.root)
    if not remote:
        path = os.path.normpath(os.path.join(root, path))
    server = b"/".join(path.split(b"/", 3)[:3]) if remote else b""
    if not path[len(server) :].strip(b"/"):
        noted(Problem("unusable path", os.fsdecode(given), "it names no file"))
        return
    if remote:
        yield Record(path, FILE, len(server), length, 0, b"", label, 0, 0)
        return
    below = path.startswith(root.rstrip(b"/") + b"/")
    yield from _file(unit, root if below else b"", path, label, noted, length)


def _file(
    unit: Unit, root: bytes, path: bytes, label: bytes, noted: Noted, length: int = UNKNOWN
) -> Iterator[Record]:
    """The record of a file; with `sizes` it is looked at, and noted if it is not there."""
    if unit.sizes:
        try:
            length = min(os.stat(path).st_size, UNKNOWN)
        except OSError as error:
            noted(Problem("missing file", os.fsdecode(path), str(error.strerror).lower()))
            return
    yield Record(path, FILE, len(root.rstrip(b"/")), length, 0, b"", label, 0, 0)


def _shards(unit: Unit, noted: Noted) -> Iterator[Record]:
    for item in unit.items:
        yield from shard_records(os.fsencode(item), noted)


def _index(unit: Unit, noted: Noted) -> Iterator[Record]:
    """A range of another index."""
    return index_records(Index(unit.source), range(unit.start, unit.stop))


def index_records(index: Index, places: Iterator[int] | range) -> Iterator[Record]:
    """The entries at these places, as the build that made them saw them."""
    labels, classes, base = index.labels(), index.classes(), index.base
    for place in places:
        entry = index.entry(place)
        container = index.container(entry.container)
        path = container.located(base)
        path = path if is_remote(path) else os.path.normpath(path)
        label = (
            b"" if labels is None or labels[place] == NO_LABEL else _name(classes, labels[place])
        )
        length, mark = entry.length, entry.mark
        if container.kind == Kind.FOLDER:
            root = path.rstrip(b"/")
            yield Record(root + b"/" + entry.name, FILE, len(root), length, 0, b"", label, 0, 0)
        else:
            stamp = container.size, container.mtime_ns
            yield Record(path, entry.offset, len(path), length, mark, entry.name, label, *stamp)


def _name(classes: tuple[str, ...], label: int) -> bytes:
    if not 0 <= label < len(classes):
        raise DataError(f"label {label} is none of the {len(classes)} classes of the index")
    return classes[label].encode("utf-8", "surrogateescape")


READERS: dict[str, Callable[[Unit, Noted], Iterator[Record]]] = {
    "files": _files_beside,
    "folders": _subfolders,
    "lines": _lines,
    "array": _array,
    "csv": _csv,
    "jsonl": _json_lines,
    "shards": _shards,
    "index": _index,
}
