"""Processes on this machine: this one alone, or several that it starts and watches."""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from unlabeled import process
from unlabeled.config.ranges import positive
from unlabeled.distributed.rendezvous import SharedFile
from unlabeled.errors import Interrupted, UserError
from unlabeled.launch.base import Job, Launcher
from unlabeled.launch.signals import signals_passed_to
from unlabeled.launch.task import call
from unlabeled.launch.worker import work
from unlabeled.registry import register

GRACE_SECONDS = 2.0
"""A failing rank breaks the collectives of its peers: how long to wait for the one to blame."""


@register("launcher", "local")
class Local(Launcher):
    """Run on this machine, in `processes` processes that meet through a file (no port is taken).

    One process runs in the command itself. With several, the command starts and watches them: when
    one fails the others are stopped and its error is shown, a signal to the command is passed on to
    them, and when the command is killed they die with it. gloo on CPUs, nccl on GPUs, one GPU a
    process.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """How many."""

        processes: int = 1
        """Processes that train together; each computes batch_size / processes images."""
        timeout_seconds: float = 1800.0
        """A rank that waits longer than this for its peers gives up."""
        connect_seconds: float = 300.0
        """The peers must be found within this time."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            yield from positive(self, "processes", "timeout_seconds", "connect_seconds")

    def run(self, job: Job, config: Any) -> None:
        """In this process, or in children."""
        processes = self.config.processes
        common = {
            "world_size": processes,
            "local_processes": processes,
            "timeout_seconds": self.config.timeout_seconds,
            "connect_seconds": self.config.connect_seconds,
        }
        with tempfile.TemporaryDirectory(prefix="unlabeled-") as folder:
            common["rendezvous"] = SharedFile(Path(folder) / "rendezvous")
            if processes == 1:
                work(job, config, rank=0, local_rank=0, **common)
            else:
                _start_and_watch(job, config, common, processes)


def _start_and_watch(job: Job, config: Any, common: dict[str, Any], processes: int) -> None:
    context = multiprocessing.get_context("spawn")
    children: list[tuple[BaseProcess, Connection]] = []
    for rank in range(processes):
        receiver, sender = context.Pipe(duplex=False)
        pickled = pickle.dumps(partial(_child, job, config, rank, common))
        child = context.Process(target=call, args=(pickled, sender), name=f"rank {rank}")
        child.start()
        sender.close()
        children.append((child, receiver))
    try:
        with signals_passed_to([child for child, _ in children]):
            _watch(children)
    finally:
        for started, _ in children:
            if started.is_alive():
                started.terminate()
        for started, _ in children:
            started.join(timeout=10)
            if started.is_alive():
                started.kill()
                started.join()


def _watch(children: list[tuple[BaseProcess, Connection]]) -> None:
    """Return when all ended well; raise the failure that caused the others."""
    running = dict(enumerate(children))
    failures: list[_Failure] = []
    give_up = math.inf
    while running and time.monotonic() < give_up:
        left = None if give_up == math.inf else max(0.0, give_up - time.monotonic())
        wait([child.sentinel for child, _ in running.values()], timeout=left)
        for rank, (child, receiver) in list(running.items()):
            if not child.is_alive():
                del running[rank]
                failures += _failure(rank, child, receiver)
        # Those that were asked to stop all do, each in its own time.
        errors = [f.error for f in failures if not isinstance(f.error, Interrupted)]
        if any(isinstance(error, UserError) for error in errors):
            break
        if errors:
            give_up = min(give_up, time.monotonic() + GRACE_SECONDS)
    if failures:
        cause = min(failures, key=_Failure.order)
        if isinstance(cause.error, UserError):
            raise cause.error
        detail = cause.error or f"ended with status {cause.status}"
        raise RuntimeError(f"rank {cause.rank} failed: {detail}")


@dataclass(frozen=True)
class _Failure:
    """How a rank failed: an error for people, a traceback, or (killed) None."""

    rank: int
    error: UserError | str | None
    status: int | None
    when: float

    def order(self) -> tuple[int, float]:
        """Likely causes first: expected errors, sudden deaths, then the earliest crash."""
        kinds = (isinstance(self.error, UserError), self.error is None, True)
        return kinds.index(True), self.when


def _failure(rank: int, child: BaseProcess, receiver: Connection) -> list[_Failure]:
    """What an ended child has to say; nothing if it ended well."""
    try:
        when, error = receiver.recv()
    except (EOFError, OSError):  # it said nothing, or died while it spoke
        when, error = 0.0, None
    failed = child.exitcode != 0 or error is not None
    return [_Failure(rank, error, child.exitcode, when)] if failed else []


def _child(job: Job, config: Any, rank: int, common: dict[str, Any], sender: Connection) -> None:
    _die_with_parent()
    status = 0
    try:
        work(job, config, rank=rank, local_rank=rank, **common)
    except UserError as error:
        sender.send((time.time(), error))
        status = error.exit_status
    except KeyboardInterrupt:
        status = 130
    except BaseException:
        sender.send((time.time(), traceback.format_exc()))
        raise
    process.ends_with(status)
    sys.exit(status)


def _die_with_parent() -> None:
    """On Linux, be killed when the command that started us is (PR_SET_PDEATHSIG = 1)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is not None and parent.pid != os.getppid():  # it died while we imported
            os._exit(1)
