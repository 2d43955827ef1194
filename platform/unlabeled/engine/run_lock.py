"""One process writes a run directory: checkpoints and logs of two would be mixed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from unlabeled.engine.run_directory import RunDirectory
from unlabeled.errors import ConfigError, EnvironmentProblem

NAME = ".lock"


@contextlib.contextmanager
def only_writer(run: RunDirectory) -> Iterator[None]:
    """Hold the run directory, which exists; ConfigError if another process does.

    A POSIX record lock on `.lock`: it ends with this process, however that ends, and processes
    forked from it do not share it. Two starts of one job of a scheduler never overlap, so a lock
    that a dead node left behind on a network's file system does not stop its job. Where the file
    system keeps no locks, everyone is let in. Taken by one process of a job.
    """
    path = run.path / NAME
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise EnvironmentProblem(f"run.dir: cannot write {path}: {error.strerror}") from error
    try:
        _take(file, path)
        yield
    finally:
        os.close(file)


def _take(file: int, path: Path) -> None:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:  # POSIX allows both
        host, pid, job = _holder(path)
        if job is None or job != os.environ.get("SLURM_JOB_ID"):
            raise ConfigError(
                f"run.dir: {path.parent} is being written by process {pid} on {host}; give another "
                f"run.dir, or stop that one (if it is gone, remove {path})"
            ) from error
    except OSError:  # no locks on this file system
        return
    words = f"{platform.node()} {os.getpid()} {os.environ.get('SLURM_JOB_ID', '')}"
    with contextlib.suppress(OSError):  # a full disk: then who holds it cannot be told, no more
        os.ftruncate(file, 0)
        os.pwrite(file, words.encode(), 0)


def _holder(path: Path) -> tuple[str, str, str | None]:
    """Host, process and job of who wrote last; question marks before it has written."""
    words = path.read_text(encoding="utf-8", errors="replace").split(" ")
    if len(words) != 3:
        return "?", "?", None
    return words[0], words[1], words[2] or None
