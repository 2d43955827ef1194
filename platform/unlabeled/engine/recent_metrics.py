"""The end of metrics.jsonl: where a run is and how fast, without reading all that it wrote."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TAIL_BYTES = 1 << 16  # some 150 records
TIMED_RECORDS = 50


@dataclass(frozen=True)
class RecentMetrics:
    """The newest training record, and the speed of the steps that led to it."""

    step: int
    epoch: float | None
    loss: float | None
    seconds_per_step: float | None
    """Median over the last 50 records; a record tells images per second and images per step."""


def recent_metrics(path: Path) -> RecentMetrics | None:
    """What the process that wrote last has told; None before its first training record.

    A continued run repeats steps, so that the numbers go back where another process took over:
    nothing before that place counts. Lines that are torn or are no records are passed over.
    """
    records = _of_last_process(_records_backwards(path))
    found = [record for record in records if record.get("phase") == "train"]
    if not found:
        return None
    newest = found[0]
    seconds = [s for s in map(_seconds, found[:TIMED_RECORDS]) if s is not None]
    return RecentMetrics(
        newest["step"],
        _finite(newest.get("epoch")),
        _finite(newest.get("loss")),
        statistics.median(seconds) if seconds else None,
    )


def _of_last_process(backwards: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    step = math.inf
    for record in backwards:
        if record["step"] > step:
            return
        step = record["step"]
        yield record


def _records_backwards(path: Path) -> Iterator[dict[str, Any]]:
    for line in reversed(_last_lines(path)):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and type(record.get("step")) is int:
            yield record


def _last_lines(path: Path) -> list[bytes]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = file.seek(max(0, size - TAIL_BYTES))
            lines = file.read(TAIL_BYTES).split(b"\n")
    except OSError:
        return []
    return lines[1:] if start else lines  # the first may lack its beginning


def _seconds(record: dict[str, Any]) -> float | None:
    """Seconds of one step: its images by the images per second."""
    samples, speed = _finite(record.get("samples")), _finite(record.get("img_per_s"))
    step: int = record["step"]
    if not samples or not speed or step < 1:
        return None
    return samples / step / speed


def _finite(value: object) -> float | None:
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of 400 digits
        return None
    return number if math.isfinite(number) else None
