"""Joining and leaving the process group, and wrapping modules to average their gradients."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from unlabeled.distributed import comm
from unlabeled.distributed.mailbox import Mailbox
from unlabeled.distributed.rendezvous import Rendezvous
from unlabeled.errors import EnvironmentProblem

_mailbox: Mailbox | None = None


@contextmanager
def process_group(
    *,
    rank: int,
    world_size: int,
    rendezvous: Rendezvous,
    device: torch.device,
    timeout_seconds: float,
    connect_seconds: float,
) -> Iterator[None]:
    """Belong to a group of `world_size` processes: nccl on GPUs, gloo on CPUs.

    EnvironmentProblem if the peers are not found within `connect_seconds`. Later a collective that
    waits a quarter longer than `timeout_seconds` fails: after who watches the ranks had time to say
    which one is to blame.
    """
    if world_size == 1:
        yield
        return
    global _mailbox
    store = rendezvous.store(rank, world_size, connect_seconds)
    _await_peers(store, rank, world_size, connect_seconds)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=1.25 * timeout_seconds + 10),
    )
    _mailbox = Mailbox(store, rank, world_size)
    try:
        yield
    finally:
        _mailbox = None
        dist.destroy_process_group()


def mailbox() -> Mailbox | None:
    """Of the group that this process belongs to; None when alone."""
    return _mailbox


def _await_peers(store: dist.Store, rank: int, world_size: int, seconds: float) -> None:
    """Name the ranks that never came, where torch would only say that it waited."""
    store.set(f"here/{rank}", socket.gethostname())
    keys = [f"here/{other}" for other in range(world_size)]
    try:
        store.wait(keys, timedelta(seconds=seconds))
    except RuntimeError as error:
        missing = [other for other, key in enumerate(keys) if not store.check([key])]
        raise EnvironmentProblem(
            f"rank {rank} on {socket.gethostname()} waited {seconds:g} s in vain for "
            f"{'rank' if len(missing) == 1 else 'ranks'} {', '.join(map(str, missing))} of "
            f"{world_size}"
        ) from error


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


def same_buffers(module: nn.Module, except_names: Collection[str]) -> None:
    """Give every rank the buffers of rank 0, but for those that differ between ranks on purpose."""
    for name, buffer in module.named_buffers():
        if name not in except_names and buffer.numel() > 0:
            comm.broadcast(buffer)
