"""The state of a run from what it said, what its machine says and what its scheduler says."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from unlabeled.engine.process_identity import process_identity
from unlabeled.engine.run_status import RunStatus
from unlabeled.launch.job_record import JobRecord
from unlabeled.launch.run_state import State, job_to_ask_for, judge
from unlabeled.launch.slurm_queue import QueueEntry

SUBMITTED = datetime(2024, 5, 6, 12, tzinfo=timezone.utc)
JOB = JobRecord("slurm", "slurm", "12", SUBMITTED, Path("/home"), "none")
STATUS = RunStatus(
    state="running",
    step=3,
    last_step=12,
    started=(SUBMITTED + timedelta(minutes=1)).isoformat(),
    ended=None,
    host="another-machine",
    pid=1,
    process="boot:1",
    job="12",
    reason=None,
    exit_status=None,
)
OLD = replace(STATUS, started=(SUBMITTED - timedelta(hours=1)).isoformat(), job="7")
OLD_FAILED = replace(OLD, state="failed")
STOPPED = replace(STATUS, state="stopped", reason="SIGTERM")
FAILED = replace(STATUS, state="failed", reason="no images")
FINISHED = replace(STATUS, state="finished")
HERE = replace(
    STATUS, host=platform.node(), pid=os.getpid(), process=process_identity(os.getpid()), job=None
)
RUNNING, PENDING = QueueEntry("RUNNING"), QueueEntry("PENDING", "Resources")
COMPLETING = QueueEntry("COMPLETING")


@pytest.mark.parametrize(
    ("status", "entry", "expected"),
    [
        (None, PENDING, State("pending", "Resources")),
        (None, RUNNING, State("starting")),
        (None, None, State("lost", "job 12 has ended before the run began")),
        (STATUS, RUNNING, State("running")),
        (STATUS, COMPLETING, State("running")),
        (STATUS, None, State("lost", "job 12 has ended")),
        # preempted: it stops, waits in the queue, and loads again
        (STOPPED, COMPLETING, State("stopped", "SIGTERM")),
        (STOPPED, PENDING, State("pending", "Resources")),
        (STOPPED, RUNNING, State("starting", "SIGTERM")),
        (STOPPED, None, State("stopped", "SIGTERM")),
        (FAILED, RUNNING, State("starting", "no images")),
        (FAILED, None, State("failed", "no images")),
        (FINISHED, RUNNING, State("finished")),
        (FINISHED, COMPLETING, State("finished")),
        (FINISHED, None, State("finished")),
        # submitted again: what an earlier life said is no state of this one
        (OLD, PENDING, State("pending", "Resources")),
        (OLD, RUNNING, State("starting")),
        (OLD_FAILED, RUNNING, State("starting")),
        (OLD_FAILED, None, State("lost", "job 12 has ended before the run began")),
    ],
)  # fmt: skip
def test_a_submitted_run(
    status: RunStatus | None, entry: QueueEntry | None, expected: State
) -> None:
    assert judge(status, JOB, {"12": entry} if entry else {}) == expected


def test_a_job_that_was_cancelled_is_not_lost() -> None:
    job = replace(JOB, cancelled=True)
    for status in (None, STATUS, OLD, STOPPED):
        assert judge(status, job, {}) == State("stopped", "job 12 was cancelled")
    assert judge(FINISHED, job, {}).word == "finished"
    assert judge(FAILED, job, {}) == State("failed", "no images")
    assert judge(replace(HERE, job="12"), job, {}).word == "running"  # it still finishes its step


def test_without_an_answer_of_the_scheduler_only_what_was_said_is_known() -> None:
    for status in (None, STATUS, OLD):
        assert judge(status, JOB, None) == State("unknown", "no answer about job 12")
    assert judge(FAILED, JOB, None) == State("failed", "no images")
    assert judge(replace(HERE, job="12"), JOB, None).word == "running"


def test_a_run_that_was_continued_without_its_scheduler_is_judged_by_its_process() -> None:
    assert judge(HERE, JOB, {}).word == "running"
    assert judge(replace(HERE, pid=2**30), JOB, {}) == State("lost", "process 1073741824 is gone")
    assert judge(replace(HERE, state="failed", reason="x"), JOB, {}) == State("failed", "x")
    assert job_to_ask_for(HERE, JOB) is None


def test_a_process_of_this_machine() -> None:
    assert judge(HERE, None, None) == State("running")
    dead = State("lost", f"process {os.getpid()} is gone")
    assert judge(replace(HERE, process="boot:1"), None, None) == dead  # its number was given again
    assert judge(replace(HERE, process=None), None, None) == dead


def test_a_process_of_another_machine() -> None:
    alone = replace(STATUS, job=None)
    assert judge(alone, None, None) == State("unknown", "on another-machine")
    assert job_to_ask_for(alone, None) is None
    # within a job that `unlabeled` did not submit
    assert job_to_ask_for(STATUS, None) == "12"
    assert judge(STATUS, None, {"12": RUNNING}) == State("running")
    assert judge(STATUS, None, {}) == State("lost", "job 12 has ended")
    assert judge(STATUS, None, None) == State("unknown", "on another-machine")
    assert job_to_ask_for(FAILED, None) is None


def test_a_job_is_asked_for_by_its_own_id() -> None:
    assert job_to_ask_for(None, JOB) == "12"
    assert job_to_ask_for(OLD, JOB) == "12"
    assert job_to_ask_for(None, replace(JOB, cluster="local")) is None
    assert job_to_ask_for(None, None) is None


def test_a_local_job_is_there_as_long_as_the_process_that_watches_it() -> None:
    gone = replace(JOB, cluster="local", id=str(2**30))
    assert judge(None, gone, None).word == "lost"
    # a process of that number which is none of submitit's
    assert judge(None, replace(gone, id=str(os.getpid())), None).word == "lost"
    assert judge(HERE, gone, None).word == "running"
    elsewhere = replace(STATUS, job=None)
    assert judge(elsewhere, gone, None).word == "unknown"


def test_no_status_and_no_job() -> None:
    assert judge(None, None, {}) == State("unknown", "no status.json that can be read")
