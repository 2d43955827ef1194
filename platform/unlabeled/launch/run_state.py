"""What state a run is in: what it last said itself, against what its machine and scheduler say."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from unlabeled.engine.process_identity import command_line, descendants, process_identity
from unlabeled.engine.run_status import RunStatus, moment
from unlabeled.launch.job_record import JobRecord
from unlabeled.launch.slurm_queue import QueueEntry

WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
ACTIVE = ("pending", "starting", "running")
GONE = QueueEntry("GONE")
UNKNOWN = QueueEntry("UNKNOWN")


@dataclass(frozen=True)
class State:
    """One word, and why.

    pending (queued), starting (its processes load), running; finished, stopped, failed (so it said
    itself); lost (it said nothing and is gone); unknown.
    """

    word: str
    reason: str | None = None

    @property
    def active(self) -> bool:
        """Whether it computes or will do so by itself."""
        return self.word in ACTIVE


def governing(status: RunStatus | None, job: JobRecord | None) -> JobRecord | None:
    """The submission, unless the run was continued since without the scheduler."""
    if job is None or status is None or is_stale(status, job):
        return job
    by_scheduler = status.job == job.id if job.cluster == "slurm" else status.job is None
    return job if by_scheduler else None


def is_stale(status: RunStatus, job: JobRecord) -> bool:
    """Whether the status is that of a life before this submission."""
    started = moment(status.started)
    return started is not None and started < job.submitted


def job_to_ask_for(status: RunStatus | None, job: JobRecord | None) -> str | None:
    """The SLURM job that the state depends on; a run may be in one that it did not submit."""
    if job := governing(status, job):
        return job.id if job.cluster == "slurm" else None
    return status.job if status and status.state == "running" and not on_this_host(status) else None


def judge(
    status: RunStatus | None, job: JobRecord | None, queue: dict[str, QueueEntry] | None
) -> State:
    """The state of a run; `queue` as `slurm_queue` answers."""
    if submission := governing(status, job):
        current = None if status is None or is_stale(status, submission) else status
        return _of_job(current, submission, _view(current, submission, queue))
    if status is None:
        return State("unknown", "no status.json that can be read")
    if status.state != "running":
        return State(status.state, status.reason)
    if on_this_host(status):
        alive = is_its_process(status)
        return State("running") if alive else State("lost", f"process {status.pid} is gone")
    if status.job is not None and queue is not None:
        view = queue.get(status.job, GONE)
        return State("running") if view is not GONE else _lost(status.job)
    return State("unknown", f"on {status.host}")


def _view(
    status: RunStatus | None, job: JobRecord, queue: dict[str, QueueEntry] | None
) -> QueueEntry:
    if job.cluster == "slurm":
        return UNKNOWN if queue is None else queue.get(job.id, GONE)
    if status is not None and not on_this_host(status):
        return UNKNOWN
    return QueueEntry("RUNNING") if local_job_processes(job) else GONE


def _of_job(status: RunStatus | None, job: JobRecord, view: QueueEntry) -> State:
    """`status` as written since the submission; between two lives of a job it is the last one's."""
    if view.state in WAITING:
        return State("pending", view.reason)
    if view in (GONE, UNKNOWN):
        return _without_job(status, job, view)
    if status is None:
        return State("starting")
    goes_on = status.state in ("stopped", "failed") and view.state != "COMPLETING"
    return State("starting" if goes_on else status.state, status.reason)


def _without_job(status: RunStatus | None, job: JobRecord, view: QueueEntry) -> State:
    """The job has ended, or nobody answers for it."""
    said = status.state if status else None
    reason = status.reason if status else None
    if said in ("finished", "failed"):
        return State(said, reason)
    if status is not None and said == "running" and is_its_process(status):
        return State("running")
    if job.cancelled:
        return State("stopped", f"job {job.id} was cancelled")
    if said == "stopped":
        return State(said, reason)
    if view is UNKNOWN:
        return State("unknown", f"no answer about job {job.id}")
    return _lost(job.id, began=said is not None)


def _lost(job: str, *, began: bool = True) -> State:
    return State("lost", f"job {job} has ended" + ("" if began else " before the run began"))


def on_this_host(status: RunStatus) -> bool:
    """Whether its process would be among those of this machine."""
    return status.host == platform.node()


def is_its_process(status: RunStatus) -> bool:
    """Whether the process that wrote the status runs on this machine, not one of its number."""
    return on_this_host(status) and status.process == (process_identity(status.pid) or "")


def local_job_processes(job: JobRecord) -> list[int]:
    """Submitit's process that watches this local job, and the shell around it where there is one.

    Empty once they have ended, also if a process of another command was given the number.
    """
    family = descendants(int(job.id)) if job.id.isdigit() else []
    return [pid for pid in family if "submitit.local._local" in command_line(pid)]
