"""Joining and leaving the process group, and wrapping modules to average their gradients."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from unlabeled.distributed import comm
from unlabeled.errors import EnvironmentProblem


@contextmanager
def process_group(
    *, rank: int, world_size: int, init_method: str, device: torch.device, timeout_seconds: float
) -> Iterator[None]:
    """Belong to a group of `world_size` processes: nccl on GPUs, gloo on CPUs."""
    if world_size == 1:
        yield
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(
            backend,
            init_method=init_method,
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=timeout_seconds),
        )
    except (RuntimeError, ValueError) as error:
        raise EnvironmentProblem(
            f"rank {rank} could not join its {world_size - 1} peers at {init_method} within "
            f"{timeout_seconds:g} s ({error})"
        ) from error
    try:
        yield
    finally:
        dist.destroy_process_group()


def data_parallel(module: nn.Module, device: torch.device) -> nn.Module:
    """The module, with gradients averaged over ranks in backward where there are several.

    Buffers are left alone: queues and banks differ between ranks on purpose.
    """
    if comm.world_size() == 1 or not any(p.requires_grad for p in module.parameters()):
        return module
    ids = [device] if device.type == "cuda" else None
    with warnings.catch_warnings():
        # torch 2.15 renames the flag, and its new name still copies buffers once at the start.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(module, device_ids=ids, broadcast_buffers=False)


def without_gradient_averaging(module: nn.Module) -> AbstractContextManager[Any]:
    """For all but the last micro-batch of an accumulated step."""
    if isinstance(module, DistributedDataParallel):
        return module.no_sync()
    return nullcontext()


def same_buffers(module: nn.Module, except_names: tuple[str, ...]) -> None:
    """Give every rank the buffers of rank 0, but for those that differ between ranks on purpose."""
    for name, buffer in module.named_buffers():
        if name not in except_names:
            comm.broadcast(buffer)
