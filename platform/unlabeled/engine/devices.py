"""Which device a process computes on and how many CPU threads it may use."""

from __future__ import annotations

import os

import torch

from unlabeled.errors import EnvironmentProblem


def choose_device(wanted: str, local_rank: int) -> torch.device:
    """`auto` takes the GPU of the local rank where there is one; `cuda` insists on it."""
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cpu" or (wanted == "auto" and available == 0):
        return torch.device("cpu")
    if available == 0:
        raise EnvironmentProblem(
            "device: cuda was asked for and torch sees no GPU; use device=auto or device=cpu, or "
            "see `unlabeled doctor`"
        )
    if local_rank >= available:
        raise EnvironmentProblem(
            f"launch.processes: local rank {local_rank} has no GPU of its own, torch sees "
            f"{available}; start at most {available} processes on this machine or use device=cpu"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def set_threads(threads: int | None, local_processes: int) -> int:
    """Fix torch's CPU threads (their number changes the order of sums, and so the last bits)."""
    count = threads or max(1, len(os.sched_getaffinity(0)) // local_processes)
    torch.set_num_threads(count)
    return count
