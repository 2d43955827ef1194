"""Runs for `unlabeled jobs`: real ones in processes of their own, and what it lists of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests_support.command import unlabeled
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.engine.run_status import now


def listed(folder: Path) -> list[dict[str, Any]]:
    """`unlabeled jobs FOLDER --json` in a process of its own."""
    result = unlabeled("jobs", str(folder), "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def only(folder: Path) -> dict[str, Any]:
    (found,) = listed(folder)
    return found


def wait_for(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.05)


def train_records(run: Path) -> list[dict[str, Any]]:
    return [each for each in RunDirectory(run).metrics() if each["phase"] == "train"]


def write_job(run: Path, **changes: str) -> None:
    """job/job.json of a submission to submitit's local cluster, by a process that is gone."""
    (run / "job").mkdir(parents=True, exist_ok=True)
    job = {
        "launcher": "slurm",
        "cluster": "local",
        "id": str(2**30),
        "submitted": now(),
        "command": ["unlabeled", "pretrain"],
        "folder": str(run),
        "logs": "job/%j_*_log.out",
    }
    (run / "job" / "job.json").write_text(json.dumps(job | changes))
