"""From what a person names to units of work: cut so that many processes share them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from unlabeled.data.index.layout import HEADER
from unlabeled.data.index.listings import Unit
from unlabeled.data.index.reader import Index
from unlabeled.data.index.remote_files import is_remote
from unlabeled.data.npy_files import map_array
from unlabeled.errors import ConfigError, DataError

LIST_BYTES, ENTRIES_PER_UNIT = 1 << 26, 1_000_000
FOLDERS_PER_INPUT, SHARDS_PER_UNIT = 256, 16
KINDS = "a folder, a list (.txt, .npy), a table (.csv, .tsv, .jsonl), a shard (.tar) or an index"


def plan(
    inputs: Sequence[str], *, root: str | None, folder_labels: bool, sizes: bool
) -> list[Unit]:
    """The units of all inputs, in their order; DataError for an input that is none.

    `root` is where relative paths of lists start; null: the folder that the list lies in.
    """
    units = [unit for given in inputs for unit in _units(given, root)]
    shards = list(
        dict.fromkeys(item for unit in units if unit.kind == "shards" for item in unit.items)
    )
    units = [unit for unit in units if unit.kind != "shards"] + list(_shard_units(shards))
    return [replace(unit, folder_labels=folder_labels, sizes=sizes) for unit in units]


def _units(given: str, root: str | None) -> Iterator[Unit]:
    if is_remote(given):
        if not given.endswith(".tar"):
            raise ConfigError(f"{given}: of what is far away, shards (.tar) can be indexed")
        yield Unit("shards", given, "", items=(given,))
        return
    path = Path(given).expanduser()
    if not path.exists():
        raise DataError(f"{path} does not exist; give {KINDS}")
    if path.is_dir():
        yield from _index_units(path) if (path / HEADER).is_file() else _folder_units(path)
        return
    start = os.path.abspath(path.parent if root is None else Path(root).expanduser())
    unit = partial(Unit, source=os.path.abspath(path), root=start)
    if path.suffix == ".tar":
        yield unit("shards", items=(os.path.abspath(path),))
    elif path.suffix in (".txt", ".jsonl"):
        kind = "lines" if path.suffix == ".txt" else "jsonl"
        size = path.stat().st_size
        for first in range(0, size, LIST_BYTES):
            yield unit(kind, start=first, stop=min(first + LIST_BYTES, size))
    elif path.suffix == ".npy":
        count = _array_length(path)
        for first in range(0, count, ENTRIES_PER_UNIT):
            yield unit("array", start=first, stop=min(first + ENTRIES_PER_UNIT, count))
    elif path.suffix in (".csv", ".tsv"):
        yield unit("csv")
    elif {".gz", ".bz2", ".xz", ".zst", ".tgz"} & set(path.suffixes):
        raise ConfigError(
            f"{path}: a compressed shard cannot be read by byte range; unpack it to a plain .tar"
        )
    else:
        raise ConfigError(f"{path}: the kind of input is not known; give {KINDS}")


def _folder_units(path: Path) -> Iterator[Unit]:
    """Its own images, its shards, and its subfolders in groups."""
    root = os.path.abspath(path)
    subfolders, shards = [], []
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    if entry.is_dir() and not os.path.isfile(os.path.join(entry.path, HEADER)):
                        subfolders.append(entry.name)
                    elif entry.name.endswith(".tar"):
                        shards.append(entry.path)
    except OSError as error:
        raise DataError(f"cannot list {path}: {error.strerror}") from error
    yield Unit("files", root, root)
    subfolders.sort()
    group = -(-len(subfolders) // FOLDERS_PER_INPUT) or 1
    for first in range(0, len(subfolders), group):
        yield Unit("folders", root, root, items=tuple(subfolders[first : first + group]))
    if shards:
        yield Unit("shards", root, root, items=tuple(sorted(shards)))


def _shard_units(shards: Sequence[str]) -> Iterator[Unit]:
    for first in range(0, len(shards), SHARDS_PER_UNIT):
        yield Unit("shards", "", "", items=tuple(shards[first : first + SHARDS_PER_UNIT]))


def _index_units(path: Path) -> Iterator[Unit]:
    source, count = os.path.abspath(path), len(Index(path))
    for first in range(0, count, ENTRIES_PER_UNIT):
        yield Unit("index", source, source, start=first, stop=min(first + ENTRIES_PER_UNIT, count))


def _array_length(path: Path) -> int:
    array = map_array(path)
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise DataError(
            f"{path}: expected a one-dimensional array of strings, got shape {array.shape} of "
            f"{array.dtype}"
        )
    return len(array)
