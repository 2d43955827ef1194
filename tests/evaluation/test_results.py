from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unlabeled.errors import DataError
from unlabeled.evaluation.results import (
    Result,
    format_table,
    read_results,
    result_rows,
    write_result,
)

RESULT = Result(
    benchmark="knn",
    protocol="weighted 20-NN",
    metrics={"top1": 81.25, "top1_k10": 80.0},
    dataset="digits",
    fingerprint="0123456789abcdef",
    weights="runs/a",
    seed=3,
    seconds=1.5,
    identity="ab12",
    config={"name": "knn", "k": [10, 20]},
)


def test_round_trip_in_the_order_of_the_file_names(tmp_path: Path) -> None:
    other = replace(RESULT, benchmark="linear", metrics={"top1": 1.0})
    write_result(tmp_path / "results" / "linear.json", other)
    write_result(tmp_path / "results" / "knn.json", RESULT)
    assert read_results(tmp_path / "results") == [RESULT, other]
    assert sorted(os.listdir(tmp_path / "results")) == ["knn.json", "linear.json"]


def test_the_file_has_the_keys_that_tools_rely_on(tmp_path: Path) -> None:
    write_result(tmp_path / "knn.json", RESULT)
    data = json.loads((tmp_path / "knn.json").read_text())
    assert list(data) == [
        *["benchmark", "protocol", "metrics", "dataset", "fingerprint", "weights"],
        *["seed", "seconds", "identity", "config"],
    ]
    assert data["metrics"] == {"top1": 81.25, "top1_k10": 80.0}


def test_a_reader_of_the_old_result_is_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "knn.json"
    write_result(path, RESULT)
    with path.open() as reader:
        write_result(path, replace(RESULT, seed=4))
        assert json.load(reader)["seed"] == 3
    assert read_results(tmp_path)[0].seed == 4


def test_a_failed_write_leaves_the_old_result_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "knn.json"
    write_result(path, RESULT)

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_result(path, replace(RESULT, seed=4))
    assert read_results(tmp_path) == [RESULT]
    assert os.listdir(tmp_path) == ["knn.json"]


def test_nan_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_result(tmp_path / "knn.json", replace(RESULT, metrics={"top1": float("nan")}))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("text", ["", '{"benchmark": "knn"', "[]", '{"benchmark": "knn"}'])
def test_a_file_that_is_no_result_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(DataError, match=r"odd\.json"):
        read_results(tmp_path)


def test_no_folder_means_no_results(tmp_path: Path) -> None:
    assert read_results(tmp_path / "none") == []


def test_table_is_aligned() -> None:
    rows: list[dict[str, Any]] = [
        *result_rows([RESULT]),
        {"benchmark": "linear", "dataset": "skimage", "weights": "random", "top5": 100.0, "n": 7},
    ]
    assert format_table(rows).splitlines() == [
        "benchmark  dataset  weights   top1  top1_k10    top5  n",
        "---------  -------  -------  -----  --------  ------  -",
        "knn        digits   runs/a   81.25     80.00",
        "linear     skimage  random                    100.00  7",
    ]
    assert format_table([]) == ""
