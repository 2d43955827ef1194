"""Reading what squeue prints, and what happens where there is no SLURM."""

from __future__ import annotations

import pytest

from unlabeled.errors import EnvironmentProblem
from unlabeled.launch.slurm_queue import QueueEntry, cancel_slurm_job, parse_queue, slurm_queue


def test_lines_of_squeue() -> None:
    text = (
        "12|12|RUNNING|None\n"
        "13|13|PENDING|(Resources|or so)\n"
        "14_0|14|PENDING|Priority\n"
        "14_1|15|COMPLETING|None\n"
        "slurm_load_jobs error: half a line\n"
    )
    assert parse_queue(text) == {
        "12": QueueEntry("RUNNING"),
        "13": QueueEntry("PENDING", "(Resources|or so)"),
        "14_0": QueueEntry("PENDING", "Priority"),
        "14": QueueEntry("PENDING", "Priority"),
        "14_1": QueueEntry("COMPLETING"),
        "15": QueueEntry("COMPLETING"),
    }
    assert parse_queue("") == {}


def test_without_squeue_there_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert slurm_queue(["12"]) is None
    with pytest.raises(EnvironmentProblem, match="cannot cancel job 12: scontrol is not on PATH"):
        cancel_slurm_job("12")


def test_nothing_but_a_job_id_reaches_a_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert slurm_queue(["--all", "1;2", "", "1 2", "12\n"]) == {}
    for job in ("--user=root", "12 13", "12,13", ""):
        with pytest.raises(EnvironmentProblem, match="no job id of SLURM"):
            cancel_slurm_job(job)
