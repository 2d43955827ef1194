"""What a process of a scheduled job does, and how it says why it ended."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch

from unlabeled import process
from unlabeled.distributed.rendezvous import Published
from unlabeled.engine.logs import log_to
from unlabeled.errors import EnvironmentProblem, Interrupted, UserError
from unlabeled.launch.base import Job
from unlabeled.launch.requeue import BEGUN, FAILED, FINISHED, STOPPED, outcome_file
from unlabeled.launch.worker import work

log = logging.getLogger(__name__)
START_AGAIN = 144
"""With this status a task asks submitit's local executor to start it again."""


@dataclass(frozen=True)
class Place:
    """A process's place in a scheduled job."""

    job_id: str
    start: str
    """Number of this start, where the scheduler counts them."""
    host: str
    rank: int
    local_rank: int
    world_size: int
    local_processes: int
    requeues_itself: bool
    """Whether the lines around the job put it back into the queue."""


@dataclass(frozen=True)
class ScheduledJob:
    """Pickled at submission, called in every task of the job."""

    job: Job
    config: Any
    folder: str
    directory: str
    """Where the command was given; relative paths of the config start there."""
    place: Callable[[], Place]

    def __call__(self) -> None:
        """Run the job as the rank that the scheduler says."""
        os.chdir(self.directory)
        place = self.place()
        try:
            self._stop_at_once_on_signals(place)
            self._work(place)
        except Interrupted as error:
            _tell(error)
            self._leave(place, STOPPED, str(error))
            _exit(0 if place.requeues_itself else START_AGAIN)
        except EnvironmentProblem as error:
            _tell(error)  # and crash: another node, or a later time, may have what is missing
            _exit(error.exit_status)
        except UserError as error:
            _tell(error)
            self._leave(place, FAILED, str(error))
            _exit(error.exit_status)
        self._leave(place, FINISHED)
        process.ends_with(0)

    def _stop_at_once_on_signals(self, place: Place) -> None:
        """Until the job watches for signals itself they end this process, with nothing to save.

        The status brings down the peers that got no signal. A job that never watches (a suite) does
        again what it had not finished.
        """
        moment = " before the first step" if self._watches() else ""

        def stop(number: int, _: FrameType | None) -> None:
            self._leave(place, STOPPED, f"{signal.Signals(number).name}{moment}")
            os._exit(1 if place.requeues_itself else START_AGAIN)

        for name in self._signals():
            signal.signal(signal.Signals[name], stop)

    def _watches(self) -> bool:
        """Whether the job minds signals itself, once it has begun."""
        return hasattr(self.config, "checkpoint")

    def _signals(self) -> list[str]:
        """Those that ask the job to stop."""
        if self._watches():
            watched: list[str] = self.config.checkpoint.on_signals
            return watched
        return [self.config.launch.fields.signal, "SIGTERM"]

    def _begin(self, config: Any, device: torch.device) -> None:
        """The job, which from now on minds signals itself if it is one that does."""
        place = self.place()
        if self._watches():
            if not outcome_file(Path(self.folder), place.job_id).exists():  # not stopped meanwhile
                self._leave(place, BEGUN)
            for name in self._signals():
                signal.signal(signal.Signals[name], signal.SIG_DFL)
        self.job(config, device)

    def _work(self, place: Place) -> None:
        launch = self.config.launch.fields
        file = Path(self.folder) / f"{place.job_id}.{place.start}.rendezvous"
        work(
            self._begin,
            self.config,
            rank=place.rank,
            world_size=place.world_size,
            local_rank=place.local_rank,
            local_processes=place.local_processes,
            rendezvous=Published(file, place.host),
            timeout_seconds=launch.timeout_seconds,
            connect_seconds=launch.connect_seconds,
        )

    def _leave(self, place: Place, outcome: str, reason: str = "") -> None:
        """Say how it ended: rank 0 for all, but for a rank that failed or was stopped alone."""
        if place.rank == 0 or outcome in (STOPPED, FAILED):
            text = ": ".join([outcome, *reason.splitlines()[:1]])
            file = outcome_file(Path(self.folder), place.job_id)
            beside = file.with_name(f".{file.name}.{socket.gethostname()}.{os.getpid()}")
            beside.write_text(text + "\n", encoding="utf-8")
            os.replace(beside, file)


def _exit(status: int) -> NoReturn:
    process.ends_with(status)
    sys.exit(status)


def _tell(error: UserError) -> None:
    with log_to(None, terminal=True):
        for line in str(error).splitlines():
            log.error("unlabeled: %s", line)
