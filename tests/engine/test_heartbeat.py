"""A rank that is silent or stuck is named with its last step, and the job ends."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests_support.command import TINY, started, unlabeled
from unlabeled.engine.heartbeat import Beat, Watch


def beats(*progress: tuple[int, int, int]) -> list[Beat]:
    """(count, step, phase) of every rank."""
    return [
        Beat(count, step, phase, f"host{rank}")
        for rank, (count, step, phase) in enumerate(progress)
    ]


def test_texts_come_back() -> None:
    beat = Beat(3, 4, 1, "a host", 5)
    assert Beat.read(beat.text()) == beat


def test_ranks_that_beat_and_step_are_left_alone() -> None:
    watch = Watch(10)
    for second in range(0, 100, 9):
        assert watch.verdict(beats((second, second, 0), (second, second, 1)), second) is None


def test_a_silent_rank_is_named_with_its_step_although_others_go_on() -> None:
    watch = Watch(10)
    assert watch.verdict(beats((0, 7, 0), (0, 7, 1), (0, 7, 0)), 0) is None
    assert watch.verdict(beats((1, 8, 0), (0, 7, 1), (1, 8, 0)), 10) is None
    told = watch.verdict(beats((2, 8, 0), (0, 7, 1), (2, 8, 0)), 11)
    assert told == ("gave no sign of life for 10 s: rank 1 on host1 evaluates after step 7")


def test_when_all_stand_still_those_behind_are_named() -> None:
    watch = Watch(10)
    assert watch.verdict(beats((0, 8, 0), (0, 7, 1), (0, 7, 1)), 0) is None
    assert watch.verdict(beats((1, 8, 0), (1, 7, 1), (1, 8, 0)), 5) is None
    assert watch.verdict(beats((2, 8, 0), (2, 7, 1), (2, 8, 0)), 15) is None
    told = watch.verdict(beats((3, 8, 0), (3, 7, 1), (3, 8, 0)), 16)
    assert told == (
        "made no progress, and the others wait for 10 s: rank 1 on host1 evaluates after step 7"
    )


def test_ranks_that_work_within_a_step_do_not_stand_still() -> None:
    """A pass over all images, or their clusters, between two epochs."""
    watch = Watch(10)
    for second in range(0, 100, 5):
        found = [Beat(second, 8, 2, "a", second), Beat(second, 8, 2, "b", 7)]
        assert watch.verdict(found, second) is None
    assert watch.verdict([Beat(100, 8, 2, "a", 95), Beat(100, 8, 2, "b", 7)], 106) is not None


TWO = ["launch.processes=2", "launch.timeout_seconds=8", "epochs=1000", "max_steps=4000"]
"""Two ranks that wait eight seconds for each other, more than a busy machine needs to begin."""


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in tasks]


@pytest.mark.slow
def test_a_rank_that_stands_still_is_named(tmp_path: Path) -> None:
    command = ["pretrain", *TINY, *TWO, "run.dir=run", "hooks.knn_probe=null"]
    with (
        (tmp_path / "said").open("w") as said,
        started(*command, cwd=tmp_path, output=said) as process,
    ):
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.1)
        os.kill(max(children(process.pid)), signal.SIGSTOP)
        assert process.wait(timeout=60) != 0
    output = (tmp_path / "said").read_text()
    assert "rank 1 on " in output
    assert "gave no sign of life for 8 s" in output or "made no progress" in output


@pytest.mark.slow
def test_a_stuck_rank_is_named_and_the_waiting_one_is_not(tmp_path: Path) -> None:
    stuck = "+hooks.stuck={name: stuck_rank, step: 3, rank: 1}"
    command = ["pretrain", *TINY, *TWO, "run.dir=run", "plugins=[tests_support.stuck_rank]", stuck]
    ended = unlabeled(*command, cwd=tmp_path)
    assert ended.returncode != 0
    output = ended.stdout + ended.stderr
    (line,) = [text for text in output.splitlines() if "no progress" in text]
    assert "rank 1 on " in line
    assert "after step 3" in line
    assert "rank 0" not in line
