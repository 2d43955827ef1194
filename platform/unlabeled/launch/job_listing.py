"""Runs below a folder, each with its state, progress, time left, restarts and log."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from unlabeled.engine.recent_metrics import RecentMetrics, recent_metrics
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.engine.run_status import RunStatus, moment, read_status
from unlabeled.errors import ConfigError
from unlabeled.launch.job_record import JobRecord, count_restarts, read_job
from unlabeled.launch.run_state import State, job_to_ask_for, judge
from unlabeled.launch.slurm_queue import slurm_queue

DEPTH = 4
"""Folders below the given one that are looked into: runs/multirun-.../3 is at 2."""


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What there is to say of a run."""

    run: RunDirectory
    status: RunStatus | None
    job: JobRecord | None
    state: State
    step: int | None
    last_step: int | None
    epoch: float | None
    loss: float | None
    eta_seconds: float | None
    """Steps left x median seconds of the recent ones; None unless it runs and a step was timed."""
    restarts: int
    log: Path | None
    """log.txt, or before there is one the newest output of the job."""
    began: datetime
    """When it was last started or submitted."""

    @property
    def may_run(self) -> bool:
        """Whether it computes, will do so by itself, or nobody here can say that it does not."""
        ended = self.status.state != "running" if self.status else self.job is None
        return self.state.active or (self.state.word == "unknown" and not ended)


def list_runs(folders: Iterable[Path]) -> list[RunReport]:
    """Every run in or below the folders, the one that began last first."""
    found = {run.resolve(): run for folder in folders for run in _runs_below(folder, DEPTH)}
    return sorted(_reports(found.values()), key=lambda report: report.began, reverse=True)


def report_run(path: Path) -> RunReport:
    """One run as it is now."""
    (report,) = _reports([path])
    return report


def named_run(name: str, folder: Path = Path("runs")) -> Path:
    """The run directory `name`, or that of this name below `folder`; ConfigError if neither is."""
    for path in (Path(name).expanduser(), folder / name):
        if _is_run(path):
            return path
    known = [str(path.relative_to(folder)) for path in _runs_below(folder, DEPTH)]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ConfigError(
        f"{name}: no run directory, and none of that name below {folder}.{hint} "
        "`unlabeled jobs` lists them"
    )


def _is_run(path: Path) -> bool:
    described = (path / "config.yaml").is_file() and (path / "checkpoints").is_dir()
    return described or any((path / name).is_file() for name in ("status.json", "job/job.json"))


def _runs_below(folder: Path, depth: int) -> Iterator[Path]:
    """Run directories; what lies inside of one is not looked into, nor what a link points at."""
    if _is_run(folder):
        yield folder
        return
    try:
        inside = sorted(e.path for e in os.scandir(folder) if e.is_dir(follow_symlinks=False))
    except OSError:
        return
    for path in map(Path, inside if depth else []):
        if not path.name.startswith("."):
            yield from _runs_below(path, depth - 1)


def _reports(paths: Iterable[Path]) -> list[RunReport]:
    """All reports, with one question to the scheduler."""
    runs = [RunDirectory(path) for path in paths]
    known = [(run, read_status(run), read_job(run)) for run in runs]
    ids = {each for _, status, job in known if (each := job_to_ask_for(status, job))}
    queue = slurm_queue(ids)
    return [_report(run, status, job, judge(status, job, queue)) for run, status, job in known]


def _report(
    run: RunDirectory, status: RunStatus | None, job: JobRecord | None, state: State
) -> RunReport:
    metrics = recent_metrics(run.metrics_file)
    step, timed = _step(run, status, metrics)
    last_step = status.last_step if status else None
    left = None
    timing = metrics.seconds_per_step if metrics and timed else None
    if state.word == "running" and timing is not None and last_step is not None:
        left = max(0, last_step - (step or 0)) * timing
    began = [moment(status.started)] if status else []
    began += [job.submitted] if job else []
    return RunReport(
        run=run,
        status=status,
        job=job,
        state=_with_age(state, run),
        step=step,
        last_step=last_step,
        epoch=metrics.epoch if metrics else None,
        loss=metrics.loss if metrics else None,
        eta_seconds=left,
        restarts=count_restarts(run),
        log=_log(run, job),
        began=max((b for b in began if b), default=_modified(run.path) or _NEVER),
    )


def _step(
    run: RunDirectory, status: RunStatus | None, metrics: RecentMetrics | None
) -> tuple[int | None, bool]:
    """The step, and whether the present process has timed one.

    Until a continued run has written its first record, the last one is that of the process before.
    """
    if status is None:
        return (metrics.step if metrics else None), False
    if status.state != "running" or metrics is None:
        return status.step, False
    started, written = moment(status.started), _modified(run.metrics_file)
    if started is None or written is None or written < started:
        return status.step, False
    return metrics.step, True


def _with_age(state: State, run: RunDirectory) -> State:
    """How old the last line is, where nothing else tells whether a run still runs."""
    written = _modified(run.metrics_file) or _modified(run.log_file)
    if state.word != "unknown" or written is None:
        return state
    minutes = max(0, round((datetime.now(timezone.utc) - written).total_seconds() / 60))
    age = f"last line {minutes} min ago"
    return State(state.word, f"{state.reason}, {age}" if state.reason else age)


def _log(run: RunDirectory, job: JobRecord | None) -> Path | None:
    if run.log_file.is_file():
        return run.log_file
    return next(job.outputs(), None) if job else None


_NEVER = datetime.fromtimestamp(0, timezone.utc)


def _modified(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
    except OSError:
        return None
