"""A linear layer whose rows lie on the ranks of a group: what it is given travels, weights stay."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from unlabeled.distributed.comm import Group


def group_linear(inputs: Tensor, weight: Tensor, bias: Tensor, group: Group) -> Tensor:
    """x W^T + b for this rank's rows x, with the W and b that the G ranks of a group hold together.

    Shapes: inputs [n, D], as many on every rank; of W and b this rank's rows [K / G, D] and
    [K / G], which follow each other in rank order -> [n, K]. group: None is the whole world.
    Every rank gets the x of all, multiplies them by its own rows, and sends the results back: a
    rank sends (G - 1) n (D + K / G) numbers and as many in backward, however large W is.
    Gradients: that of x is this rank's own; those of W and b are sums over the group's losses.
    """
    everyone: Tensor = _Gather.apply(inputs, group)  # [G n, D]
    scores: Tensor = _ToOwners.apply(functional.linear(everyone, weight, bias), group)
    return scores


class _Gather(torch.autograd.Function):
    """Rows [n, D] of this rank -> [G n, D] of the group's ranks in their order."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Group) -> Tensor:
        ctx.group = group
        everyone = rows.new_empty(dist.get_world_size(group) * len(rows), *rows.shape[1:])
        dist.all_gather_into_tensor(everyone, rows.contiguous(), group=group)
        return everyone

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        own = wide.new_empty(len(wide) // dist.get_world_size(ctx.group), *wide.shape[1:])
        dist.reduce_scatter_tensor(own, wide.contiguous(), group=ctx.group)
        return own.to(gradient.dtype), None


class _ToOwners(torch.autograd.Function):
    """Some columns [G n, k] of every rank's rows -> all columns [n, G k] of this rank's rows."""

    @staticmethod
    def forward(ctx: Any, columns: Tensor, group: Group) -> Tensor:
        ctx.group, ranks = group, dist.get_world_size(group)
        received = _exchanged(columns, group).view(ranks, -1, columns.shape[1])
        return received.transpose(0, 1).reshape(-1, ranks * columns.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ranks = dist.get_world_size(ctx.group)
        parts = gradient.reshape(len(gradient), ranks, -1).transpose(0, 1)  # [G, n, k]
        return _exchanged(parts.flatten(0, 1), ctx.group), None


def _exchanged(blocks: Tensor, group: Group) -> Tensor:
    """Block i of n rows goes to rank i, and comes from there."""
    received = torch.empty_like(blocks, memory_format=torch.contiguous_format)
    dist.all_to_all_single(received, blocks.contiguous(), group=group)
    return received
