"""Processes of this machine: they find each other, and a failure of one ends them all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests_support import jobs
from tests_support.jobs import JobConfig
from unlabeled.config.check import build_config
from unlabeled.errors import ConfigError, DivergenceError, UserError
from unlabeled.launch.local import Local


def launch(job: Callable[..., Any], folder: Path, processes: int) -> None:
    Local(Local.Config(processes=processes)).run(job, JobConfig(str(folder)))


def left(folder: Path, rank: int) -> list[int | str]:
    words = (folder / f"rank{rank}").read_text().split()
    return [int(word) if word.isdigit() else word for word in words]


def alive(pid: Any) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


def test_one_process_is_the_command_itself(tmp_path: Path) -> None:
    launch(jobs.sum_of_ranks, tmp_path, 1)
    assert left(tmp_path, 0) == [os.getpid(), 1, 1, 1]
    assert not (tmp_path / "rank1").exists()


@pytest.mark.slow
def test_two_processes_meet_and_compute_together(tmp_path: Path) -> None:
    launch(jobs.sum_of_ranks, tmp_path, 2)
    ranks = [left(tmp_path, rank) for rank in (0, 1)]
    assert [rank[1:] for rank in ranks] == [[2, 3, 1], [2, 3, 1]]
    assert len({os.getpid(), ranks[0][0], ranks[1][0]}) == 3


def failure(job: Callable[..., Any], folder: Path) -> BaseException:
    """What the launcher raises; whoever still ran must be gone by then, long before 60 s."""
    started = time.monotonic()
    with pytest.raises((UserError, RuntimeError)) as caught:
        launch(job, folder, 2)
    assert time.monotonic() - started < 50
    assert not any(alive(left(folder, rank)[0]) for rank in (0, 1))
    return caught.value


@pytest.mark.slow
def test_an_expected_failure_arrives_as_itself_and_stops_the_other_rank(tmp_path: Path) -> None:
    error = failure(jobs.config_error_on_rank_1, tmp_path)
    assert type(error) is ConfigError
    assert error.problems == ["seed: first fault", "lr: second fault"]
    assert error.exit_status == 2


@pytest.mark.slow
def test_the_cause_is_told_and_not_the_broken_collective_of_a_peer(tmp_path: Path) -> None:
    error = failure(jobs.divergence_while_rank_0_waits, tmp_path)
    assert type(error) is DivergenceError
    assert str(error) == "the loss became nan"


@pytest.mark.slow
def test_a_crash_names_the_rank_and_shows_where(tmp_path: Path) -> None:
    error = failure(jobs.crash_on_rank_1, tmp_path)
    assert str(error).startswith("rank 1 failed: Traceback")
    assert "ZeroDivisionError: nobody foresaw this" in str(error)
    assert "crash_on_rank_1" in str(error)


@pytest.mark.slow
def test_a_killed_process_names_the_rank_and_its_status(tmp_path: Path) -> None:
    error = failure(jobs.death_of_rank_1, tmp_path)
    assert str(error) == "rank 1 failed: ended with status -9"


@pytest.mark.parametrize("field", ["processes", "timeout_seconds"])
def test_numbers_must_be_positive(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field}: must be positive, got 0"):
        build_config(Local.Config, {field: 0})
