"""Step, loss and speed from the end of metrics.jsonl, against reading all of it."""

from __future__ import annotations

import json
import random
import statistics
from pathlib import Path
from typing import Any

import pytest

from unlabeled.engine.recent_metrics import TAIL_BYTES, TIMED_RECORDS, recent_metrics


def record(step: int, speed: float, batch_size: int = 256) -> dict[str, Any]:
    return {
        "phase": "train",
        "step": step,
        "samples": step * batch_size,
        "epoch": step / 100,
        "loss": 6.0 - step / 1000,
        "lr": 0.3,
        "img_per_s": speed,
        "data_wait": 0.01,
    }


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return path


def test_a_long_run_is_told_from_its_end(tmp_path: Path) -> None:
    draw = random.Random(0)
    records = [record(step, draw.uniform(100, 1000)) for step in range(1, 5001)]
    path = write(tmp_path / "metrics.jsonl", *records)
    assert path.stat().st_size > 5 * TAIL_BYTES
    found = recent_metrics(path)
    assert found is not None
    assert (found.step, found.epoch, found.loss) == (5000, 50.0, 1.0)
    seconds = statistics.median(256 / each["img_per_s"] for each in records[-TIMED_RECORDS:])
    assert found.seconds_per_step == pytest.approx(seconds, rel=1e-12)


def test_what_a_step_took_by_hand(tmp_path: Path) -> None:
    """Three steps of 512 images at 256, 128 and 512 images a second: 2, 4 and 1 seconds."""
    path = write(tmp_path / "m", *(record(i + 1, s, 512) for i, s in enumerate([256, 128, 512])))
    found = recent_metrics(path)
    assert found is not None and found.seconds_per_step == 2.0


def test_what_an_earlier_process_wrote_does_not_count(tmp_path: Path) -> None:
    """It died at step 30, its last checkpoint was of step 20; the next one is ten times faster."""
    first = [record(step, 100) for step in range(1, 31)]
    path = write(tmp_path / "m", *first, *(record(step, 1000) for step in (21, 22)))
    found = recent_metrics(path)
    assert found is not None
    assert (found.step, found.seconds_per_step) == (22, 0.256)


def test_a_continued_run_has_told_nothing_before_its_first_step(tmp_path: Path) -> None:
    began = {"phase": "epoch_start", "step": 20, "epoch": 0.2, "clusters": 3.0}
    path = write(tmp_path / "m", *(record(step, 100) for step in range(1, 31)), began)
    assert recent_metrics(path) is None


def test_records_of_an_epoch_are_no_steps(tmp_path: Path) -> None:
    epoch = {"phase": "epoch", "step": 2, "samples": 512, "epoch": 0.02, "loss": 99.0}
    found = recent_metrics(write(tmp_path / "m", record(1, 256), record(2, 256), epoch))
    assert found is not None
    assert (found.step, found.loss, found.seconds_per_step) == (2, 6.0 - 2 / 1000, 1.0)


@pytest.mark.parametrize(
    "line",
    [b'{"phase": "train", "st', b"", b"\xff\xfe", b"[1, 2]", b"17", b'{"phase": "train"}',
     b'{"phase": "train", "step": "x"}', b'{"phase": "train", "step": true}', b"[" * 10000],
)  # fmt: skip
def test_lines_that_are_no_records_are_passed_over(line: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "m", record(1, 256), record(2, 256))
    for text in (path.read_bytes() + line, path.read_bytes() + line + b"\n"):
        path.write_bytes(text)
        found = recent_metrics(path)
        assert found is not None and (found.step, found.seconds_per_step) == (2, 1.0)


@pytest.mark.parametrize("speed", [0, None, "fast", float("nan"), float("inf"), 10**400])
def test_a_speed_that_is_none_tells_no_time(speed: object, tmp_path: Path) -> None:
    strange = record(1, 1.0) | {"img_per_s": speed, "loss": float("nan")}
    found = recent_metrics(write(tmp_path / "m", strange))
    assert found is not None
    assert (found.step, found.loss, found.seconds_per_step) == (1, None, None)


def test_no_file_and_an_empty_one(tmp_path: Path) -> None:
    assert recent_metrics(tmp_path / "none") is None
    assert recent_metrics(write(tmp_path / "empty")) is None
