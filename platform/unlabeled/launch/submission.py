"""Around the moment of a submission: what is written down, and what the job must not inherit."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from unlabeled.engine.run_directory import environment, write_atomically


def write_record(folder: Path, job_id: str, *, cluster: str, processes: int) -> None:
    """Write job.json: what was submitted, by which command, from which code."""
    facts = environment(processes, "")
    record = {
        "launcher": "slurm",
        "cluster": cluster,
        "id": job_id,
        "submitted": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "folder": os.getcwd(),
        "logs": f"{folder}/{job_id}_*_log.out",
        "git": facts["git"],
        "python": sys.executable,
        "packages": facts["packages"],
    }
    write_atomically(folder / "job.json", json.dumps(record, indent=1) + "\n")


@contextmanager
def nothing_inherited() -> Iterator[None]:
    """What submitit's local executor starts must not keep the pipe open that we write into."""
    sys.stdout.flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number, _ in kept:
            os.dup2(nowhere, number)
        yield
    finally:
        for number, copy in kept:
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)
