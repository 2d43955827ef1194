from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unlabeled.data.index import records as sorting
from unlabeled.data.index.records import FILE, Problem, Record, RunWriter, merged, place, unique
from unlabeled.errors import DataError


def record(path: str, label: str = "", offset: int = FILE) -> Record:
    member = b"" if offset == FILE else b"m"
    return Record(path.encode(), offset, 1, 5, 6, member, label.encode(), 7, 8)


def drawn(count: int) -> list[Record]:
    """Records with many duplicates, in a random order."""
    random = np.random.default_rng(0)
    return [
        record(f"/{random.integers(30)}", "", int(random.integers(-1, 3))) for _ in range(count)
    ]


@pytest.mark.parametrize("fan_in", [2, 3, 128])
def test_a_merge_of_runs_is_the_sorted_whole_in_any_number_of_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fan_in: int
) -> None:
    monkeypatch.setattr(sorting, "RECORDS_IN_MEMORY", 7)
    monkeypatch.setattr(sorting, "FAN_IN", fan_in)
    # The mark says where a record stood, so that the order of equals is seen as well.
    given = [r._replace(mark=number) for number, r in enumerate(drawn(150))]
    writer = RunWriter(tmp_path, "unit-0")
    for each in given:
        writer.add(each)
    writer.flush()
    assert len(writer.runs) == 22 and writer.count == 150
    expected = sorted(given, key=place)
    assert list(merged(tmp_path, writer.runs)) == expected
    assert list(merged(tmp_path, writer.runs)) == expected  # from what the first pass left


def test_memory_and_open_files_are_bounded_to_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sorting, "RECORDS_IN_MEMORY", 3)
    monkeypatch.setattr(sorting, "FAN_IN", 2)
    writer = RunWriter(tmp_path, "unit-0")
    for number in range(9):
        writer.add(record(f"/{number}"))
    assert len(writer.runs) == 3  # without a flush
    merged(tmp_path, writer.runs[:2])
    assert not list(tmp_path.glob("merged-*"))
    merged(tmp_path, writer.runs)
    assert len(list(tmp_path.glob("merged-*"))) == 2


def test_of_equals_the_first_with_a_label_stays_and_contradictions_are_told() -> None:
    noted: list[Problem] = []
    given = [
        *(record("/a"), record("/a", "cat"), record("/a", "dog"), record("/a", "cat")),
        *(record("/b"), record("/b"), record("/c", "", 0), record("/c", "", 512)),
    ]
    kept = list(unique(given, noted.append))
    assert kept == [record("/a", "cat"), record("/b"), record("/c", "", 0), record("/c", "", 512)]
    assert [(p.kind, p.name) for p in noted] == [
        *[("duplicate", "/a")] * 2,
        ("two labels", "/a"),
        *[("duplicate", "/a"), ("duplicate", "/b")],
    ]


def test_a_run_that_was_cut_is_an_error(tmp_path: Path) -> None:
    sorting.write_run(tmp_path / "a.run", [record("/a")])
    data = (tmp_path / "a.run").read_bytes()
    (tmp_path / "a.run").write_bytes(data + data[:20])
    with pytest.raises(DataError, match="cut short"):
        list(merged(tmp_path, ["a.run"]))
