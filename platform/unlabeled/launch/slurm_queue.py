"""What SLURM says of jobs, and asking it to cancel one; through squeue, scontrol and scancel."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from unlabeled.errors import EnvironmentProblem

ANSWER_SECONDS = 30.0
JOB_ID = re.compile(r"\d+(_\d+)?")


@dataclass(frozen=True)
class QueueEntry:
    """A job that the scheduler still holds: RUNNING, PENDING, ..., and why it waits."""

    state: str
    reason: str | None = None


def slurm_queue(ids: Iterable[str]) -> dict[str, QueueEntry] | None:
    """The jobs among `ids` that are queued or run; None where there is no squeue, or no answer.

    An id is `123`, or `123_4` for a task of an array.
    """
    asked = sorted({each for each in ids if JOB_ID.fullmatch(each)})
    if not asked:
        return {}
    answer = _ask("squeue", "--noheader", "--array", "--jobs", ",".join(asked),
                  "--format", "%i|%A|%T|%r")  # fmt: skip
    if answer is None or (answer.returncode and "Invalid job id" not in answer.stderr):
        return None
    return parse_queue(answer.stdout)


def parse_queue(text: str) -> dict[str, QueueEntry]:
    """Lines `id|number|state|reason`; a task of an array is found by its id and by its number."""
    found = {}
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("|", 3)]
        if len(parts) < 4:
            continue
        shown, number, state, reason = parts
        found[shown] = found[number] = QueueEntry(
            state, None if reason in ("", "None", "(null)") else reason
        )
    return found


def cancel_slurm_job(job: str) -> None:
    """Cancel the whole job, its batch script included, and for good.

    It is first made a job that may not be queued again: the signals of a cancellation are those of
    a preemption, a run answers them by asking for another turn, and SLURM grants that to a job that
    is being cancelled.
    """
    if not JOB_ID.fullmatch(job):
        raise EnvironmentProblem(f"{job!r} is no job id of SLURM")
    for command in (("scontrol", "update", f"JobId={job}", "Requeue=0"), ("scancel", job)):
        answer = _ask(*command)
        if answer is None:
            raise EnvironmentProblem(
                f"cannot cancel job {job}: {command[0]} is not on PATH or does not answer; "
                f"try again on a machine of the cluster, or type `scancel {job}` there"
            )
        if answer.returncode:
            reason = " ".join(answer.stderr.split()) or f"status {answer.returncode}"
            raise EnvironmentProblem(f"cannot cancel job {job}: {' '.join(command)}: {reason}")


def _ask(*command: str) -> subprocess.CompletedProcess[str] | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=ANSWER_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
