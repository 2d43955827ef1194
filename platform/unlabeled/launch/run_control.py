"""Cancelling a run and submitting it again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from unlabeled.config.check import build_config
from unlabeled.config.schema import PretrainConfig
from unlabeled.engine.run_directory import read_yaml
from unlabeled.engine.run_status import RunStatus
from unlabeled.errors import ConfigError, EnvironmentProblem
from unlabeled.launch.job_listing import RunReport
from unlabeled.launch.job_record import note_cancelled
from unlabeled.launch.run_state import (
    governing,
    is_its_process,
    local_job_processes,
)
from unlabeled.launch.slurm_queue import cancel_slurm_job
from unlabeled.registry import load_plugins


def cancel(report: RunReport) -> str:
    """Stop a run for good, through whatever started it; says what was done.

    ConfigError if it does not run, EnvironmentProblem if that cannot be done from here.
    """
    path, status = report.run.path, report.status
    job = governing(status, report.job)
    if not report.may_run:
        raise ConfigError(f"{path}: nothing to cancel, it is {_described(report)}")
    if job is not None and job.cluster == "slurm":
        cancel_slurm_job(job.id)
        note_cancelled(report.run)
        return f"{path}: cancelled SLURM job {job.id}; it will not be queued again"
    if job is not None and (processes := local_job_processes(job)):
        note_cancelled(report.run)
        for pid in reversed(processes):  # the shell last: it would be the first to go
            _signal(pid, signal.SIGINT, path)  # what submitit's own cancel sends
        return f"{path}: stopped process {job.id}, which watches the local job"
    if status is not None and is_its_process(status):
        _signal(status.pid, signal.SIGTERM, path)
        return f"{path}: sent SIGTERM to process {status.pid}; it stops after its step"
    raise EnvironmentProblem(f"{path}: runs {_place(status)}; cancel it there")


def resubmitted_config(report: RunReport) -> PretrainConfig:
    """The config of a run that continues it in its own directory, with its own launcher.

    ConfigError while it runs or may run: two processes must not write one directory. Component
    names are looked up, so `plugins` are imported.
    """
    path = report.run.path
    if report.may_run:
        raise ConfigError(
            f"{path}: it is {_described(report)}; `unlabeled jobs cancel {path}` stops it"
        )
    submitted = report.run.job / "config.yaml"
    data = read_yaml(submitted if submitted.is_file() else report.run.config_file)
    data = {**data, "run": {"dir": str(path.resolve())}, "resume": "auto"}
    plugins = data.get("plugins")
    load_plugins([str(module) for module in plugins] if isinstance(plugins, list) else [])
    return build_config(PretrainConfig, data)


def _place(status: RunStatus | None) -> str:
    """Where a run is that cannot be reached from here."""
    if status is None:
        return "in a process unknown"
    within = f" in SLURM job {status.job}, which `unlabeled` did not submit" if status.job else ""
    return f"on {status.host}{within}"


def _described(report: RunReport) -> str:
    reason = f" ({report.state.reason})" if report.state.reason else ""
    return f"{report.state.word}{reason}"


def _signal(pid: int, number: signal.Signals, path: Path) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError as error:
        raise ConfigError(f"{path}: nothing to cancel, process {pid} has just ended") from error
    except PermissionError as error:
        raise EnvironmentProblem(f"{path}: process {pid} is somebody else's") from error
