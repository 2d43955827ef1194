"""The folder job/ of a run that a scheduler starts, as those read it who only look."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from unlabeled.engine.run_directory import RunDirectory, write_atomically
from unlabeled.engine.run_status import moment, now

CANCELLED = "cancelled.txt"


@dataclass(frozen=True)
class JobRecord:
    """The last submission of a run (job/job.json)."""

    launcher: str
    cluster: str
    """slurm, or local: submitit's own processes on the machine that submitted."""
    id: str
    """SLURM's job id, or the process that watches a local job."""
    submitted: datetime
    folder: Path
    """Working directory of the submission; the paths of its config are relative to it."""
    logs: str
    """Pattern of the files that hold the job's own output."""
    cancelled: bool = False
    """Whether somebody has cancelled it since it was submitted."""

    def outputs(self) -> Iterator[Path]:
        """The files of the job's own output, newest first."""
        pattern = re.sub(r"%[A-Za-z]", "*", self.logs.replace("%j", self.id))
        found = glob.glob(os.path.join(glob.escape(str(self.folder)), pattern))
        files = [path for path in map(Path, found) if path.is_file()]
        yield from sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)


def read_job(run: RunDirectory) -> JobRecord | None:
    """What job/job.json says; None if there is none or it holds something else."""
    try:
        data = json.loads((run.job / "job.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    names = ("launcher", "cluster", "id", "submitted", "folder", "logs")
    if not isinstance(data, dict) or not all(isinstance(data.get(n), str) for n in names):
        return None
    submitted = moment(data["submitted"])
    if submitted is None or data["cluster"] not in ("slurm", "local"):
        return None
    return JobRecord(
        data["launcher"],
        data["cluster"],
        data["id"],
        submitted,
        Path(data["folder"]),
        data["logs"],
        _cancelled_since(run, submitted),
    )


def note_cancelled(run: RunDirectory) -> None:
    """Keep for the listing that the submission was cancelled: a job that is gone says nothing."""
    write_atomically(run.job / CANCELLED, f"{now()}\n")


def _cancelled_since(run: RunDirectory, submitted: datetime) -> bool:
    try:
        noted = moment((run.job / CANCELLED).read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return False
    return noted is not None and noted >= submitted


def count_restarts(run: RunDirectory) -> int:
    """Lines of job/restarts.txt."""
    try:
        lines = (run.job / "restarts.txt").read_bytes().splitlines()
    except OSError:
        return 0
    return sum(1 for line in lines if line.strip())
