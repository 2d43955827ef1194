from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from tests_support.shards import built, png, put_images, put_shard
from unlabeled.data.index import checking
from unlabeled.data.index.checking import check, statistics
from unlabeled.data.index.layout import CONTAINER, CONTAINERS, ENTRIES, ENTRY, LABELS, NAMES, Kind
from unlabeled.data.index.reader import Index


@pytest.fixture
def idx(tmp_path: Path) -> Path:
    put_images(tmp_path / "in", "a/1.png", "b/2.png")
    put_shard(tmp_path / "in" / "s.tar", [(f"{n}.png", png(n)) for n in range(3)])
    built(tmp_path / "idx", tmp_path / "in", sizes=True, folder_labels=True)
    return tmp_path / "idx"


def found(idx: Path, *, files: bool = True) -> list[tuple[str, str]]:
    return [(p.kind, Path(p.name).name) for p in check(Index(idx), files=files)]


def test_nothing_is_wrong_with_what_was_just_built(idx: Path) -> None:
    assert not found(idx)


@pytest.mark.parametrize("name", [ENTRIES, NAMES, CONTAINERS, LABELS])
def test_one_changed_bit_is_found_in_any_file(idx: Path, name: str) -> None:
    data = bytearray((idx / name).read_bytes())
    data[len(data) // 2] ^= 1
    (idx / name).write_bytes(data)
    assert found(idx) == [("checksum", name)]


def test_shards_and_files_that_are_not_as_they_were_are_named(idx: Path, tmp_path: Path) -> None:
    shard = tmp_path / "in" / "s.tar"
    stamp = shard.stat().st_mtime_ns
    os.utime(shard, ns=(stamp, stamp + 10**9))
    assert found(idx, files=False) == [("changed shard", "s.tar")]
    shard.write_bytes(shard.read_bytes() + bytes(512))
    assert found(idx, files=False) == [("changed shard", "s.tar")]
    shard.unlink()
    (tmp_path / "in" / "a" / "1.png").unlink()
    (tmp_path / "in" / "b" / "2.png").write_bytes(b"other")
    assert found(idx) == [("vanished", "s.tar"), ("vanished", "1.png"), ("changed file", "2.png")]
    assert found(idx, files=False) == [("vanished", "s.tar")]


@pytest.mark.parametrize("field", [0, 3, 4])
def test_records_that_point_outside_are_found_behind_a_checksum_that_holds(
    idx: Path, field: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray((idx / ENTRIES).read_bytes())
    record = list(ENTRY.unpack_from(data, ENTRY.size))
    record[field] = 0xFFFFFFF0
    ENTRY.pack_into(data, ENTRY.size, *record)
    (idx / ENTRIES).write_bytes(data)
    marks = Index(idx).header.files
    monkeypatch.setattr(checking, "_sha256", lambda path: marks[path.name].sha256)
    assert ("record", "entry 1") in found(idx, files=False)


@pytest.mark.parametrize(
    ("name", "packed", "place", "field", "value", "problem"),
    [
        (CONTAINERS, CONTAINER, 1, 2, max(Kind) + 1, "container 1"),
        (CONTAINERS, CONTAINER, 1, 1, 0, "container 1"),
        (ENTRIES, ENTRY, 1, 4, 0, "entry 1"),
        (ENTRIES, ENTRY, 1, 3, 2, "entry 1"),  # of two containers
        (LABELS, struct.Struct("<q"), 1, 0, -2, "entry 1"),
        (LABELS, struct.Struct("<q"), 1, 0, 2, "entry 1"),  # of two classes
    ],
)
def test_the_first_value_that_means_nothing_is_found(
    idx: Path,
    name: str,
    packed: struct.Struct,
    place: int,
    field: int,
    value: int,
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = bytearray((idx / name).read_bytes())
    record = list(packed.unpack_from(data, place * packed.size))
    record[field] = value
    packed.pack_into(data, place * packed.size, *record)
    (idx / name).write_bytes(data)
    marks = Index(idx).header.files
    monkeypatch.setattr(checking, "_sha256", lambda path: marks[path.name].sha256)
    records = next(check(Index(idx), files=False))
    assert (records.kind, records.name) == ("record", problem)


def test_a_file_whose_size_nobody_asked_for_has_not_changed(tmp_path: Path) -> None:
    put_images(tmp_path / "in", "a.png")
    built(tmp_path / "idx", tmp_path / "in", sizes=False)
    assert not found(tmp_path / "idx")


@pytest.mark.parametrize("chunk", [1, 2, 1000])
def test_statistics_are_those_counted_by_hand(
    idx: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "CHUNK_ENTRIES", chunk)
    index = Index(idx)
    lengths = np.array([index.entry(place).length for place in range(len(index))])
    counted = statistics(index)
    assert (counted.entries, counted.folders, counted.shards) == (5, 1, 1)
    assert (counted.labelled, counted.classes) == (2, 2)
    assert (counted.smallest_class, counted.largest_class) == (1, 1)
    assert (counted.sized, counted.bytes, counted.largest_bytes) == (
        *(5, lengths.sum()),
        lengths.max(),
    )
    assert lengths.tolist() == [len(png(n)) for n in (0, 1, 0, 1, 2)]
