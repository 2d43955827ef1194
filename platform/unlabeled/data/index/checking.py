"""Whether an index is whole and its images are where it says, and what is in it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unlabeled.data.index.layout import (
    CONTAINER_TYPE,
    CONTAINERS,
    ENTRIES,
    ENTRY_TYPE,
    LABELS,
    NAMES,
    NO_LABEL,
    UNKNOWN,
    Kind,
)
from unlabeled.data.index.reader import Index
from unlabeled.data.index.records import Problem
from unlabeled.data.index.remote_files import is_remote

CHUNK_BYTES, CHUNK_ENTRIES = 1 << 22, 1 << 18
DAMAGE = frozenset({"checksum", "record"})
"""Kinds of problems after which nothing that the index says can be believed."""


def check(index: Index, *, files: bool) -> Iterator[Problem]:
    """What is wrong, in the order: the index's own files, its records, its containers, its images.

    Without `files`, images that are files of their own are not looked at; shards always are. What
    is far away never is.
    """
    damaged = False
    for name, mark in index.header.files.items():
        if _sha256(index.path / name) != mark.sha256:
            damaged = True
            yield Problem("checksum", str(index.path / name), "is not what was written")
    if damaged:
        return
    yield from _records(index)
    yield from _containers(index)
    if files:
        yield from _files(index)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _records(index: Index) -> Iterator[Problem]:
    """Records that point outside of what there is."""
    names = index.header.files[NAMES].bytes
    containers = np.memmap(index.path / CONTAINERS, CONTAINER_TYPE, mode="r")
    wrong = (containers["kind"] > max(Kind)) | _outside(containers, names)
    for number in np.flatnonzero(wrong)[:20]:
        yield Problem("record", f"container {number}", "points outside of the index")
    classes = len(index.classes())
    for first, entries, labels in _chunks(index):
        wrong = (entries["container"] >= len(containers)) | _outside(entries, names)
        if labels is not None:
            wrong |= (labels < NO_LABEL) | (labels >= classes)
        for place in np.flatnonzero(wrong)[:20]:
            yield Problem("record", f"entry {first + place}", "points outside of the index")


def _outside(records: np.ndarray, names: int) -> np.ndarray:
    start, length = records["name"], records["name_length"]
    wrong: np.ndarray = (length == 0) | (start > names) | (start + length > names)
    return wrong


def _chunks(index: Index) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """Pieces of the entries and of their labels, copied out of the files one at a time."""
    with (index.path / ENTRIES).open("rb") as file:
        labels = (index.path / LABELS).open("rb") if index.header.labelled else None
        try:
            for first in range(0, len(index), CHUNK_ENTRIES):
                count = min(CHUNK_ENTRIES, len(index) - first)
                entries = np.fromfile(file, ENTRY_TYPE, count)
                yield first, entries, np.fromfile(labels, "<i8", count) if labels else None
        finally:
            if labels:
                labels.close()


def _containers(index: Index) -> Iterator[Problem]:
    """Folders and shards that are gone, and shards that are not as they were."""
    for number in range(index.header.containers):
        container = index.container(number)
        if is_remote(container.path):
            continue
        path = os.fsdecode(container.located(index.base))
        try:
            status = os.stat(path)
        except OSError as error:
            yield Problem("vanished", path, (error.strerror or str(error)).lower())
            continue
        if container.kind == Kind.SHARD:
            if status.st_size != container.size:
                then = f"has {status.st_size} bytes, {container.size} when it was indexed"
                yield Problem("changed shard", path, then)
            elif status.st_mtime_ns != container.mtime_ns:
                yield Problem("changed shard", path, "was written since it was indexed")


def _files(index: Index) -> Iterator[Problem]:
    base = index.base
    for place in range(len(index)):
        entry = index.entry(place)
        container = index.container(entry.container)
        if container.kind == Kind.FOLDER and not is_remote(container.path):
            path = os.fsdecode(container.located(base, entry.name))
            try:
                size = os.stat(path).st_size
            except OSError as error:
                yield Problem("vanished", path, (error.strerror or str(error)).lower())
                continue
            if entry.length not in (UNKNOWN, size):
                then = f"has {size} bytes, {entry.length} when it was indexed"
                yield Problem("changed file", path, then)


@dataclass(frozen=True)
class Statistics:
    """What is in an index."""

    entries: int
    folders: int
    shards: int
    labelled: int
    classes: int
    smallest_class: int
    largest_class: int
    sized: int
    """Entries whose size is known."""
    bytes: int
    largest_bytes: int


def statistics(index: Index) -> Statistics:
    """One pass over the records, in bounded memory."""
    classes = index.classes()
    per_class = np.zeros(len(classes), dtype=np.int64)
    sized = total = largest = 0
    for _, entries, labels in _chunks(index):
        lengths = entries["length"][entries["length"] != UNKNOWN].astype(np.int64)
        sized, total = sized + len(lengths), total + int(lengths.sum())
        largest = max(largest, int(lengths.max(initial=0)))
        if labels is not None:
            per_class += np.bincount(labels[labels != NO_LABEL], minlength=len(classes))
    containers = np.memmap(index.path / CONTAINERS, CONTAINER_TYPE, mode="r")
    shards = int((containers["kind"] == Kind.SHARD).sum())
    return Statistics(
        entries=len(index),
        folders=len(containers) - shards,
        shards=shards,
        labelled=index.header.labelled,
        classes=len(classes),
        smallest_class=int(per_class.min()) if classes else 0,
        largest_class=int(per_class.max(initial=0)),
        sized=sized,
        bytes=total,
        largest_bytes=largest,
    )
