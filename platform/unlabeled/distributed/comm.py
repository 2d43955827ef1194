"""Collectives with and without a process group: alone, every one is the identity."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from unlabeled import activity

T = TypeVar("T")
Group: TypeAlias = "dist.ProcessGroup | None"
"""Some of the ranks; None is the whole world."""


def is_initialized() -> bool:
    """Whether this process belongs to a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number in the world, 0 when alone."""
    return dist.get_rank() if is_initialized() else 0


def world_size() -> int:
    """How many processes train together, 1 when alone."""
    return dist.get_world_size() if is_initialized() else 1


def own_group(size: int) -> Group:
    """The group of `size` consecutive ranks that this one belongs to.

    `size` divides the number of ranks, and all of them call this together.
    """
    if size == world_size():
        return None
    own: Group = None
    for start in range(0, world_size(), size):
        # Creating a group is collective: every rank creates all of them in the same order.
        group = dist.new_group(list(range(start, start + size)))
        if start <= rank() < start + size:
            own = cast("dist.ProcessGroup", group)
    return own


def barrier() -> None:
    """Wait for all ranks."""
    if world_size() > 1:
        dist.barrier()
        activity.note()


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The sum over ranks, in place and returned; no gradient flows."""
    if world_size() > 1:
        dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
        activity.note()
    return tensor


def all_reduce_max(tensor: Tensor) -> Tensor:
    """The maximum over ranks, in place and returned; no gradient flows."""
    if world_size() > 1:
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        activity.note()
    return tensor


def broadcast(tensor: Tensor, source: int = 0) -> Tensor:
    """The tensor of rank `source`, in place and returned."""
    if world_size() > 1:
        dist.broadcast(tensor, src=source)
        activity.note()
    return tensor


def all_gather(tensor: Tensor) -> Tensor:
    """The tensors of all ranks (equal shapes), concatenated along dimension 0; no gradient."""
    if world_size() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    activity.note()
    return torch.cat(parts)


def all_gather_rows(tensor: Tensor) -> Tensor:
    """As `all_gather`, of tensors that may differ in their number of rows; in rank order."""
    if world_size() == 1:
        return tensor
    counts = all_gather(torch.tensor([len(tensor)], device=tensor.device)).tolist()
    padded = tensor.new_zeros(max(counts), *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    parts = all_gather(padded).view(len(counts), *padded.shape)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def all_gather_objects(value: T) -> list[T]:
    """A small picklable value from every rank, in rank order."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    activity.note()
    return values


class _GatherWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.rows = len(tensor)
        return all_gather(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        summed = all_reduce_sum(gradient.clone())
        return summed[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def all_gather_with_gradient(tensor: Tensor) -> Tensor:
    """`all_gather` whose backward sums the gradients of all ranks and returns this rank's rows.

    With DDP's averaging this makes the gradient of the mean of the ranks' losses exact.
    """
    if world_size() == 1:
        return tensor
    gathered: Tensor = _GatherWithGradient.apply(tensor)
    return gathered
