"""A process group of any size in one process, whose other ranks are not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore


@contextmanager
def pretended_ranks(world_size: int) -> Iterator[None]:
    """Be rank 0 of `world_size` ranks: collectives return at once and leave tensors as they are.

    For tensors without memory, of which nobody reads the values.
    """
    assert not dist.is_initialized(), "this process belongs to a group already"
    if world_size == 1:
        yield
        return
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world_size)
    try:
        yield
    finally:
        dist.destroy_process_group()
