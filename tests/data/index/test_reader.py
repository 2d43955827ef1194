from __future__ import annotations

import json
import pickle
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests_support.shards import built, labels, names, png, put_images, put_shard
from unlabeled.data.index import reader
from unlabeled.data.index.layout import (
    CONTAINER,
    CONTAINERS,
    ENTRIES,
    ENTRY,
    ENTRY_TYPE,
    HEADER,
    LABELS,
    NAMES,
    FileMark,
    Header,
    Kind,
    read_header,
)
from unlabeled.data.index.reader import Index
from unlabeled.errors import DataError


@pytest.fixture
def idx(tmp_path: Path) -> Path:
    put_images(tmp_path / "in", "a/1.png", "b/2.png", "b/3.png")
    built(tmp_path / "idx", tmp_path / "in", folder_labels=True)
    return tmp_path / "idx"


def resealed(idx: Path, change: Callable[[dict[str, object]], None] = lambda data: None) -> None:
    """A header whose checksum holds, as somebody could write who means harm."""
    data = json.loads((idx / HEADER).read_bytes())
    change(data)
    for name, mark in data["files"].items():
        mark["bytes"] = (idx / name).stat().st_size
    for key in ("format", "version", "checksum"):
        data.pop(key)
    files = data.pop("files")
    header = Header(files={}, **data)
    header.files.update({name: FileMark(**mark) for name, mark in files.items()})
    header.write(idx)


def test_records_are_packed_as_the_array_type_says() -> None:
    values = (1, 2, 3, 4, 5, 6)
    record = np.frombuffer(ENTRY.pack(*values), ENTRY_TYPE)
    assert tuple(record[0].tolist()) == values and ENTRY_TYPE.itemsize == ENTRY.size == 32


def test_an_index_survives_a_process_boundary(idx: Path) -> None:
    again = pickle.loads(pickle.dumps(Index(idx)))
    assert names(again) == names(Index(idx)) == ["a/1.png", "b/2.png", "b/3.png"]
    assert labels(again) == ["a", "b", "b"]


def test_the_header_is_read_as_it_was_written(idx: Path) -> None:
    header = read_header(idx)
    assert (header.entries, header.containers, header.labelled) == (3, 1, 3)
    resealed(idx)
    assert read_header(idx).checksum() == header.checksum()


@pytest.mark.parametrize("place", [-1, 3])
def test_places_outside_are_refused(idx: Path, place: int) -> None:
    with pytest.raises(IndexError):
        Index(idx).entry(place)


def test_labels_are_mapped_and_not_read(idx: Path) -> None:
    found = Index(idx).labels()
    assert isinstance(found, np.memmap) and found.tolist() == [0, 1, 1]
    assert not found.flags.writeable


@pytest.mark.parametrize("name", [ENTRIES, NAMES, CONTAINERS, LABELS, HEADER])
def test_a_file_that_was_cut_is_noticed_when_opening(idx: Path, name: str) -> None:
    (idx / name).write_bytes((idx / name).read_bytes()[:-1])
    with pytest.raises(DataError, match=name):
        Index(idx)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read"),
        ("[" * 100_000, "cannot read"),
        ("[]", "not the header"),
        ('{"format": "unlabeled index", "version": 99}', "version 99, this release reads"),
        ('{"format": "unlabeled index", "version": 1}', "lacks what a header says"),
    ],
)
def test_other_headers_are_refused(idx: Path, text: str, message: str) -> None:
    (idx / HEADER).write_text(text)
    with pytest.raises(DataError, match=message):
        Index(idx)


def test_a_changed_count_does_not_match_the_checksum(idx: Path) -> None:
    data = json.loads((idx / HEADER).read_bytes())
    (idx / HEADER).write_text(json.dumps(data | {"entries": 2}))
    with pytest.raises(DataError, match="checksum is wrong"):
        Index(idx)


@pytest.mark.parametrize("entries", [-1, 0, 4, 1 << 70, "3", True, 2.0])
def test_a_sealed_header_that_counts_wrong_is_refused(idx: Path, entries: object) -> None:
    resealed(idx, lambda data: data.update(entries=entries))
    with pytest.raises(DataError):
        Index(idx)


def test_no_folder_is_no_index(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="make one by `unlabeled index build`"):
        Index(tmp_path)


@pytest.mark.parametrize("field", [0, 3, 4])
@pytest.mark.parametrize("value", [0xFFFFFFFF, 1 << 20])
def test_a_record_that_points_outside_is_an_error_and_nothing_else(
    idx: Path, field: int, value: int
) -> None:
    data = bytearray((idx / ENTRIES).read_bytes())
    record = list(ENTRY.unpack_from(data))
    record[field] = value
    ENTRY.pack_into(data, 0, *record)
    (idx / ENTRIES).write_bytes(data)
    index = Index(idx)
    with pytest.raises(DataError, match="record 0 is damaged"):
        index.entry(0)
    assert index.entry(1).name == b"b/2.png"


def test_the_last_place_inside_is_inside_and_the_next_one_is_not(
    idx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One container; the name, of 7 bytes, at the end of names.bin and one byte further."""
    end = (idx / NAMES).stat().st_size
    for start, container, limit, inside in (
        *((end - 7, 0, 7, True), (end - 6, 0, 7, False)),
        *((0, 1, 7, False), (0, 0, 6, False)),
    ):
        monkeypatch.setattr(reader, "MAX_NAME_BYTES", limit)
        data = bytearray((idx / ENTRIES).read_bytes())
        ENTRY.pack_into(data, 0, start, 0, 0, container, 7, 0)
        (idx / ENTRIES).write_bytes(data)
        if inside:
            assert len(Index(idx).entry(0).name) == 7
        else:
            with pytest.raises(DataError, match="record 0 is damaged"):
                Index(idx).entry(0)
    with pytest.raises(IndexError):
        Index(idx).container(1)


def test_few_of_many_containers_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "CONTAINERS_HELD", 2)
    for number in range(5):
        put_shard(tmp_path / "in" / f"{number}.tar", [("0.png", png(number))])
    built(tmp_path / "idx", tmp_path / "in")
    index = Index(tmp_path / "idx")
    for number in (0, 1, 2, 3, 4, 0, 4, 1):
        assert index.container(number).path == b"in/%d.tar" % number
        assert len(index._seen) <= 2


def test_a_billion_entries_open_at_once_in_no_memory(tmp_path: Path) -> None:
    """A file of holes with a first and a last record; the names of those are real."""
    entries, last = 10**9, 10**9 - 1
    with (tmp_path / ENTRIES).open("wb") as file:
        file.write(ENTRY.pack(5, 512, 10, 0, 7, 1))
        file.seek(last * ENTRY.size)
        file.write(ENTRY.pack(12, 1024, 20, 0, 6, 2))
    (tmp_path / NAMES).write_bytes(b"s.tarfirst.jlast.j")
    (tmp_path / CONTAINERS).write_bytes(CONTAINER.pack(0, 5, 1, 2048, 0))
    files = {n: FileMark((tmp_path / n).stat().st_size, "") for n in (ENTRIES, NAMES, CONTAINERS)}
    Header(entries=entries, containers=1, labelled=0, files=files).write(tmp_path)
    tracemalloc.start()
    started = time.process_time()
    index = Index(tmp_path)
    assert len(index) == entries
    assert index.entry(0) == (0, b"first.j", 512, 10, 1)
    assert index.entry(last) == (0, b"last.j", 1024, 20, 2)
    assert index.container(0) == (b"s.tar", Kind.SHARD, 2048, 0)
    assert time.process_time() - started < 0.1
    assert tracemalloc.get_traced_memory()[1] < 200_000
    tracemalloc.stop()
    with pytest.raises(DataError, match="record 5000 is damaged"):  # a hole
        index.entry(5000)


def test_a_container_of_no_kind_is_an_error(idx: Path) -> None:
    data = bytearray((idx / CONTAINERS).read_bytes())
    struct.pack_into("<I", data, 12, 7)
    (idx / CONTAINERS).write_bytes(data)
    with pytest.raises(DataError, match="container 0 is damaged"):
        Index(idx).container(0)
