"""What every process of a job does first: plugins, threads, device, process group."""

from __future__ import annotations

from typing import Any

from unlabeled.distributed.group import process_group
from unlabeled.distributed.rendezvous import Rendezvous
from unlabeled.engine.devices import choose_device, set_threads
from unlabeled.launch.base import Job
from unlabeled.registry import load_plugins


def work(
    job: Job,
    config: Any,
    *,
    rank: int,
    world_size: int,
    local_rank: int,
    local_processes: int,
    rendezvous: Rendezvous,
    timeout_seconds: float,
    connect_seconds: float,
) -> None:
    """Run the job as rank `rank` of `world_size`."""
    load_plugins(config.plugins)  # a process that was started has only unpickled the config
    set_threads(config.threads, local_processes)
    device = choose_device(config.device, local_rank)
    with process_group(
        rank=rank,
        world_size=world_size,
        rendezvous=rendezvous,
        device=device,
        timeout_seconds=timeout_seconds,
        connect_seconds=connect_seconds,
    ):
        job(config, device)
