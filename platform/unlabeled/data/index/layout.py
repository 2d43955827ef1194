"""The files of an index and what stands where in them.

An index is a folder. entries.bin holds one record of 32 bytes per image, names.bin the paths end to
end, containers.bin the folders and shards that the images lie in, labels.bin (where there are
labels) an int64 per image, classes.json the names of the classes. index.json counts them all and
holds the SHA-256 of each, and one of its own. Records are of one length, so that any file can be
mapped as an array or read at a place. All numbers are little-endian. Paths are bytes: names
that are no UTF-8 survive. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.data.whole_files import write_file
from unlabeled.errors import DataError

FORMAT, VERSION = "unlabeled index", 1
HEADER, ENTRIES, NAMES, CONTAINERS = "index.json", "entries.bin", "names.bin", "containers.bin"
LABELS, CLASSES = "labels.bin", "classes.json"

# Where the name starts in names.bin, first byte in the shard, bytes (UNKNOWN: nobody asked),
# container, bytes of the name, CRC-32 of the member's tar header.
ENTRY = struct.Struct("<QQIIII")
ENTRY_TYPE = np.dtype(
    [
        *(("name", "<u8"), ("offset", "<u8"), ("length", "<u4")),
        *(("container", "<u4"), ("name_length", "<u4"), ("mark", "<u4")),
    ]
)
# Where the path starts in names.bin, its bytes, Kind, the shard's bytes and time of change in ns.
CONTAINER = struct.Struct("<QIIqq")
CONTAINER_TYPE = np.dtype(
    [("name", "<u8"), ("name_length", "<u4"), ("kind", "<u4"), ("size", "<i8"), ("mtime", "<i8")]
)
LABEL_TYPE = np.dtype("<i8")
UNKNOWN = (1 << 32) - 1
NO_LABEL = -1


class Kind(IntEnum):
    """What a container is: entries are files below a folder, or members of a shard."""

    FOLDER = 0
    SHARD = 1


@dataclass(frozen=True)
class FileMark:
    """What a file of the index must be."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Header:
    """index.json: how much there is, and what the other files must be."""

    entries: int
    containers: int
    labelled: int
    """Entries with a label."""
    files: dict[str, FileMark]
    built_from: str = ""
    """A hash of the inputs, by which a build that is started again knows that it is done."""
    problems: dict[str, int] = field(default_factory=dict)
    """What was left out, counted by kind."""

    def checksum(self) -> str:
        """SHA-256 of all that this header says, so of the other files' hashes as well."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Put it into the folder, beside and renamed."""
        data = {"format": FORMAT, "version": VERSION, **asdict(self), "checksum": self.checksum()}
        text = json.dumps(data, indent=1)
        write_file(folder / HEADER, lambda file: file.write(text.encode()))


def read_header(folder: Path) -> Header:
    """The header of an index; DataError if it is none, is damaged, or its files are cut short."""
    path = folder / HEADER
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} is no index: it has no {HEADER}; make one by `unlabeled index build`"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise DataError(f"{path} is not the header of an index")
    if data.get("version") != VERSION:
        raise DataError(
            f"{path}: version {data.get('version')!r}, this release reads version {VERSION}; "
            "build the index again"
        )
    header = _header(path, data)
    if header.checksum() != data.get("checksum"):
        raise DataError(f"{path}: the checksum is wrong; build the index again")
    _check_sizes(folder, header)
    return header


def _header(path: Path, data: Mapping[str, Any]) -> Header:
    try:
        header = Header(
            entries=data["entries"],
            containers=data["containers"],
            labelled=data["labelled"],
            files={name: FileMark(**mark) for name, mark in data["files"].items()},
            built_from=data["built_from"],
            problems=dict(data["problems"]),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path} lacks what a header says ({error})") from error
    counts = [header.entries, header.containers, header.labelled]
    counts += [mark.bytes for mark in header.files.values()]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise DataError(f"{path} counts with something that is no number")
    if not header.entries or not header.containers:
        raise DataError(f"{path.parent} holds no images")
    return header


def _check_sizes(folder: Path, header: Header) -> None:
    """That the files are as long as said, and as the records in them need."""
    needed = {
        ENTRIES: header.entries * ENTRY.size,
        CONTAINERS: header.containers * CONTAINER.size,
        NAMES: None,
    }
    if header.labelled:
        needed |= {LABELS: header.entries * LABEL_TYPE.itemsize, CLASSES: None}
    for name, length in needed.items():
        mark = header.files.get(name)
        if mark is None or length not in (None, mark.bytes):
            raise DataError(f"{folder / HEADER} does not say what {name} is")
        try:
            found = (folder / name).stat().st_size
        except OSError as error:
            raise DataError(f"cannot read {folder / name}: {error.strerror}") from error
        if found != mark.bytes:
            raise DataError(
                f"{folder / name} has {found} bytes, {mark.bytes} were written; copy or build the "
                "index again"
            )
