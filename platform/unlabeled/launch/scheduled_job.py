"""What a process of a scheduled job does, and how it says why it ended."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlabeled.distributed.rendezvous import Published
from unlabeled.engine.logs import log_to
from unlabeled.errors import EnvironmentProblem, Interrupted, UserError
from unlabeled.launch.base import Job
from unlabeled.launch.requeue import FAILED, FINISHED, STOPPED, outcome_file
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
            self._work(place)
        except Interrupted as error:
            _tell(error)
            self._leave(place, STOPPED, error)
            sys.exit(0 if place.requeues_itself else START_AGAIN)
        except EnvironmentProblem as error:
            _tell(error)  # and crash: another node, or a later time, may have what is missing
            sys.exit(error.exit_status)
        except UserError as error:
            _tell(error)
            self._leave(place, FAILED, error)
            sys.exit(error.exit_status)
        self._leave(place, FINISHED, None)

    def _work(self, place: Place) -> None:
        launch = self.config.launch.fields
        file = Path(self.folder) / f"{place.job_id}.{place.start}.rendezvous"
        work(
            self.job,
            self.config,
            rank=place.rank,
            world_size=place.world_size,
            local_rank=place.local_rank,
            local_processes=place.local_processes,
            rendezvous=Published(file, place.host),
            timeout_seconds=launch.timeout_seconds,
            connect_seconds=launch.connect_seconds,
        )

    def _leave(self, place: Place, outcome: str, reason: UserError | None) -> None:
        """All ranks of a job end for the same reason, but for the one that failed."""
        if outcome == FAILED or place.rank == 0:
            text = outcome if reason is None else f"{outcome}: {str(reason).splitlines()[0]}"
            file = outcome_file(Path(self.folder), place.job_id)
            beside = file.with_name(f".{file.name}.{socket.gethostname()}.{os.getpid()}")
            beside.write_text(text + "\n", encoding="utf-8")
            os.replace(beside, file)


def _tell(error: UserError) -> None:
    with log_to(None, terminal=True):
        for line in str(error).splitlines():
            log.error("unlabeled: %s", line)
