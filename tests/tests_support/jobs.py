"""Jobs for the launchers' tests: importable by name, as a process that is started needs them."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from unlabeled.distributed import comm
from unlabeled.errors import ConfigError, DivergenceError


@dataclass(frozen=True)
class JobConfig:
    """What every job's config has, and a folder to leave traces in."""

    folder: str
    device: str = "cpu"
    threads: int | None = 1
    plugins: tuple[str, ...] = ()

    def leave(self, text: str) -> None:
        """A trace of this rank."""
        Path(self.folder, f"rank{comm.rank()}").write_text(f"{os.getpid()} {text}")


def sum_of_ranks(config: JobConfig, device: torch.device) -> None:
    """Leave the world size and the sum of rank + 1 over all ranks."""
    total = comm.all_reduce_sum(torch.tensor(float(comm.rank() + 1), device=device))
    config.leave(f"{comm.world_size()} {int(total)} {torch.get_num_threads()}")


def config_error_on_rank_1(config: JobConfig, device: torch.device) -> None:
    """Rank 1 finds two faults; rank 0 would work for a minute."""
    config.leave("started")
    comm.barrier()
    if comm.rank() == 1:
        raise ConfigError(["seed: first fault", "lr: second fault"])
    time.sleep(60)


def divergence_while_rank_0_waits(config: JobConfig, device: torch.device) -> None:
    """Rank 1 gives up and rank 0 hangs in a collective that then breaks."""
    config.leave("started")
    comm.barrier()
    if comm.rank() == 1:
        raise DivergenceError("the loss became nan")
    comm.barrier()


def crash_on_rank_1(config: JobConfig, device: torch.device) -> None:
    """An error that nobody foresaw."""
    config.leave("started")
    comm.barrier()
    if comm.rank() == 1:
        raise ZeroDivisionError("nobody foresaw this")
    time.sleep(60)


def death_of_rank_1(config: JobConfig, device: torch.device) -> None:
    """What the kernel does when memory runs out."""
    config.leave("started")
    comm.barrier()
    if comm.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
