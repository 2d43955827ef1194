"""metrics.jsonl can be read by a program, whatever happened to the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests_support.in_process import trained
from unlabeled.config.check import build_config
from unlabeled.engine.run_directory import LineWriter, RunDirectory
from unlabeled.errors import ConfigError
from unlabeled.hooks.metrics_log import MetricsLog


@pytest.mark.slow
def test_every_line_is_an_object_with_the_promised_keys(tmp_path: Path) -> None:
    trained(tmp_path, "hooks.knn_probe=null")
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [r for r in records if r["phase"] == "train"]
    assert [r["step"] for r in steps] == list(range(1, 13))
    assert [r["samples"] for r in steps] == [12 * step for step in range(1, 13)]
    assert [r["epoch"] for r in steps] == [step / 4 for step in range(1, 13)]
    for record in steps:
        assert {"loss", "lr", "img_per_s", "data_wait"} <= record.keys()
        assert 0 <= record["data_wait"] <= 1
    epochs = [r for r in records if r["phase"] == "epoch"]
    assert [r["step"] for r in epochs] == [4, 8, 12]
    for number, record in enumerate(epochs):
        mine = [r["loss"] for r in steps[4 * number : 4 * number + 4]]
        assert record["loss"] == pytest.approx(sum(mine) / 4)


@pytest.mark.slow
def test_codes_made_at_the_start_of_an_epoch_are_kept(tmp_path: Path) -> None:
    trained(tmp_path, "method=deepcluster_v2", "hooks.knn_probe=null")
    starts = [r for r in RunDirectory(tmp_path).metrics() if r["phase"] == "epoch_start"]
    assert [r["step"] for r in starts] == [0, 4, 8]


@pytest.mark.slow
def test_training_records_can_be_rarer_and_the_last_is_always_there(tmp_path: Path) -> None:
    trained(tmp_path, "hooks.metrics_log.every_steps=5", "hooks.knn_probe=null")
    records = list(RunDirectory(tmp_path).metrics())
    assert [r["step"] for r in records if r["phase"] == "train"] == [5, 10, 12]
    assert [r["step"] for r in records if r["phase"] == "epoch"] == [4, 8, 12]


def test_a_torn_last_line_costs_that_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    writer = LineWriter(path)
    writer.write({"phase": "train", "step": 1, "loss": 0.1})
    writer.write({"phase": "train", "step": 2, "loss": 0.2})
    writer.close()
    path.write_bytes(path.read_bytes()[:-9])  # a power cut inside the second line
    assert [r["step"] for r in RunDirectory(tmp_path).metrics()] == [1]
    continued = LineWriter(path)
    continued.write({"phase": "train", "step": 2, "loss": 0.3})
    continued.close()
    assert [(r["step"], r["loss"]) for r in RunDirectory(tmp_path).metrics()] == [
        (1, 0.1),
        (2, 0.3),
    ]


def test_a_line_torn_inside_a_character_can_be_read_over(tmp_path: Path) -> None:
    whole = b'{"phase": "train", "step": 1}\n'
    torn = '{"phase": "\u00e9'.encode()[:-1]
    (tmp_path / "metrics.jsonl").write_bytes(whole + torn)
    assert [r["step"] for r in RunDirectory(tmp_path).metrics()] == [1]


def test_of_a_repeated_step_the_last_line_counts(tmp_path: Path) -> None:
    writer = LineWriter(tmp_path / "metrics.jsonl")
    for phase, step, loss in [
        ("train", 1, 1.0),
        ("train", 2, 2.0),
        ("epoch", 2, 5.0),
        ("train", 2, 3.0),
    ]:
        writer.write({"phase": phase, "step": step, "loss": loss})
    writer.close()
    found = {(r["phase"], r["step"]): r["loss"] for r in RunDirectory(tmp_path).metrics()}
    assert found == {("train", 1): 1.0, ("train", 2): 3.0, ("epoch", 2): 5.0}


@pytest.mark.parametrize("value", [0.1 + 0.2, 1e-308, 2 / 3, 123456789.123456789])
def test_floats_keep_every_bit(value: float, tmp_path: Path) -> None:
    writer = LineWriter(tmp_path / "metrics.jsonl")
    writer.write({"phase": "train", "step": 1, "loss": value})
    writer.close()
    (record,) = RunDirectory(tmp_path).metrics()
    assert record["loss"] == value


def test_a_run_without_the_file_has_no_records(tmp_path: Path) -> None:
    assert list(RunDirectory(tmp_path).metrics()) == []


def test_an_interval_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="every_steps: must be 1 or more, got 0"):
        build_config(MetricsLog.Config, {"every_steps": 0})
