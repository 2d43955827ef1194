"""Processes on this machine: this one alone, or several that it starts and watches."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from unlabeled.errors import UserError
from unlabeled.launch.base import Job, Launcher
from unlabeled.launch.worker import work
from unlabeled.registry import register


@register("launcher", "local")
class Local(Launcher):
    """Run on this machine, in `processes` processes that meet through a file (no port is taken).

    One process runs in the command itself. With several, the command starts and watches them: when
    one fails the others are stopped and its error is shown, and when the command is killed they die
    with it. gloo on CPUs, nccl on GPUs, one GPU a process.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """How many."""

        processes: int = 1
        """Processes that train together; each computes batch_size / processes images."""
        timeout_seconds: float = 1800.0
        """A rank that waits longer than this for its peers gives up."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            for name in ("processes", "timeout_seconds"):
                if getattr(self, name) <= 0:
                    yield name, f"must be positive, got {getattr(self, name)}"

    def run(self, job: Job, config: Any) -> None:
        """In this process, or in children."""
        processes = self.config.processes
        common = {
            "world_size": processes,
            "local_processes": processes,
            "timeout_seconds": self.config.timeout_seconds,
        }
        if processes == 1:
            work(job, config, rank=0, local_rank=0, init_method="", **common)
            return
        with tempfile.TemporaryDirectory(prefix="unlabeled-") as folder:
            common["init_method"] = f"file://{Path(folder) / 'rendezvous'}"
            _start_and_watch(job, config, common, processes)


def _start_and_watch(job: Job, config: Any, common: dict[str, Any], processes: int) -> None:
    context = multiprocessing.get_context("spawn")
    children: list[tuple[BaseProcess, Connection]] = []
    for rank in range(processes):
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(
            target=_child, args=(sender, job, config, rank, common), name=f"rank {rank}"
        )
        child.start()
        sender.close()
        children.append((child, receiver))
    try:
        _watch(children)
    finally:
        for process, _ in children:
            if process.is_alive():
                process.terminate()
        for process, _ in children:
            process.join(timeout=10)
            if process.is_alive():
                process.kill()
                process.join()


def _watch(children: list[tuple[BaseProcess, Connection]]) -> None:
    """Return when all ended well; raise the first failure."""
    running = dict(enumerate(children))
    while running:
        wait([child.sentinel for child, _ in running.values()])
        # A failing rank makes its peers fail a moment later: look for the one with a message first.
        time.sleep(0.2)
        ended = {rank: pair for rank, pair in running.items() if not pair[0].is_alive()}
        failures = {}
        for rank, (child, receiver) in ended.items():
            error = receiver.recv() if receiver.poll() else None
            if child.exitcode != 0 or error is not None:
                failures[rank] = (child, error)
            del running[rank]
        for _, error in failures.values():
            if isinstance(error, UserError):
                raise error
        for rank, (child, error) in failures.items():
            detail = error or f"ended with status {child.exitcode}"
            raise RuntimeError(f"rank {rank} failed: {detail}")


def _child(sender: Connection, job: Job, config: Any, rank: int, common: dict[str, Any]) -> None:
    _die_with_parent()
    try:
        work(job, config, rank=rank, local_rank=rank, **common)
    except UserError as error:
        sender.send(error)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)
    except BaseException:
        sender.send(traceback.format_exc())
        raise


def _die_with_parent() -> None:
    """On Linux, be killed when the command that started us is (PR_SET_PDEATHSIG = 1)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
