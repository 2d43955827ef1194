"""A process that torchrun (or anything that sets its variables) started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from unlabeled.distributed.rendezvous import FromEnvironment
from unlabeled.launch.base import Job, Launcher
from unlabeled.launch.worker import work
from unlabeled.registry import register

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def started_by_torchrun() -> bool:
    """Whether the environment names this process's place in a world."""
    return all(name in os.environ for name in VARIABLES)


@register("launcher", "torchrun")
class Torchrun(Launcher):
    """Join the world that the environment describes: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, ...

    Chosen by itself when `torchrun` started the command. `processes` is the WORLD_SIZE of the
    environment; gloo on CPUs, nccl on GPUs.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """How many, and how long to wait."""

        processes: int = field(default_factory=lambda: int(os.environ.get("WORLD_SIZE", "1")))
        """The world size; read from the environment."""
        timeout_seconds: float = 1800.0
        """A rank that waits longer than this for its peers gives up."""
        connect_seconds: float = 300.0
        """The peers must be found within this time."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """The environment is there and agrees."""
            missing = [name for name in VARIABLES if name not in os.environ]
            if missing:
                yield (
                    "name",
                    (
                        f"torchrun was named and {', '.join(missing)} is not in the environment; "
                        "start with `torchrun --nproc_per_node=N -m unlabeled ...` or use "
                        "launch=local"
                    ),
                )
            elif self.processes != int(os.environ["WORLD_SIZE"]):
                yield (
                    "processes",
                    (
                        f"{self.processes}, and torchrun started {os.environ['WORLD_SIZE']}; "
                        "leave it out"
                    ),
                )

    def run(self, job: Job, config: Any) -> None:
        """Run the job as the rank that the environment names."""
        work(
            job,
            config,
            rank=int(os.environ["RANK"]),
            world_size=self.config.processes,
            local_rank=int(os.environ["LOCAL_RANK"]),
            local_processes=int(os.environ["LOCAL_WORLD_SIZE"]),
            rendezvous=FromEnvironment(),
            timeout_seconds=self.config.timeout_seconds,
            connect_seconds=self.config.connect_seconds,
        )
