"""Tensors of which every rank holds some rows: what optimizers and checkpoints need to know."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from unlabeled.distributed import comm


def is_sharded(tensor: Tensor) -> bool:
    """Whether this rank holds rows of it alone (a DTensor of FSDP)."""
    # Importing it takes longer than most commands, and who has not cannot hold one.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """The rows of this rank, to read or to change in place; a whole tensor as it is."""
    with torch.no_grad():
        if is_sharded(tensor):
            rows: Tensor = cast(Any, tensor).to_local()
            return rows
        return tensor.detach()[held_rows(tensor)] if _is_piece(tensor) else tensor


def differentiable_rows(tensor: Tensor) -> Tensor:
    """The same to compute with: what flows back becomes these rows of the tensor's gradient."""
    rows: Tensor = cast(Any, tensor).to_local() if is_sharded(tensor) else tensor
    return rows


def held_rows(tensor: Tensor) -> slice:
    """Which rows of a tensor this rank holds, or will hold of one that is built in pieces."""
    partly = is_sharded(tensor) or _is_piece(tensor)
    return own_rows(len(tensor)) if partly else slice(0, len(tensor))


def _is_piece(tensor: Tensor) -> bool:
    """Whether it stands for a parameter that is being made (`pieces`)."""
    return hasattr(tensor, "pieces")


def whole(tensor: Tensor) -> Tensor:
    """All rows of a tensor; of a sharded one they are gathered, and all ranks must call this."""
    if not is_sharded(tensor):
        return tensor
    gathered: Tensor = cast(Any, tensor).full_tensor()
    return gathered


def own_rows(count: int) -> slice:
    """Which of `count` rows this rank holds: equal shares, the last ranks with fewer or none."""
    share = -(-count // comm.world_size())
    return slice(min(comm.rank() * share, count), min((comm.rank() + 1) * share, count))


def whole_norms(norms: Tensor) -> Tensor:
    """Norms [P] of whole tensors from those of this rank's rows: the root of the sum of squares.

    In float64, in which the square of every float32 has its place. All ranks call this together.
    """
    return comm.all_reduce_sum(norms.double().square()).sqrt().to(norms.dtype)


def gradient_norm(gradients: Iterable[Tensor]) -> Tensor:
    """The Euclidean norm [] of all gradients together, some of them in shards; on all ranks."""
    norms: dict[bool, list[Tensor]] = {True: [], False: []}
    for gradient in gradients:
        norms[is_sharded(gradient)].append(torch.linalg.vector_norm(local(gradient)))
    parts = [torch.stack(norms[False])] if norms[False] else []
    if norms[True]:
        parts.append(whole_norms(torch.stack(norms[True])))
    return torch.linalg.vector_norm(torch.cat(parts)) if parts else torch.zeros(())


@torch.no_grad()
def clip_grad_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """torch.nn.utils.clip_grad_norm_ for parameters of which some are in shards.

    g <- g min(1, max_norm / (|all g| + 1e-6)); returns |all g|, the same on every rank.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    total = gradient_norm(gradients)
    factor = (max_norm / (total + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        local(gradient).mul_(factor)
    return total


@torch.no_grad()
def clip_each_grad(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """g <- g min(1, max_norm / (|g| + 1e-6)) for the gradient of each parameter, in shards or not.

    All ranks call this together. Reference: `clip_gradients` of the official DINO code.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    for sharded in (False, True):
        rows = [local(g) for g in gradients if is_sharded(g) == sharded]
        if rows:
            norms = torch.stack(list(torch._foreach_norm(rows)))  # [P]
            factors = (max_norm / ((whole_norms(norms) if sharded else norms) + 1e-6)).clamp(max=1)
            torch._foreach_mul_(rows, list(factors.unbind()))


class ShardedGradScaler(torch.amp.GradScaler):
    """Loss scaling where gradients are in shards: one rank's overflow costs every rank the step."""

    def _unscale_grads_(
        self,
        optimizer: torch.optim.Optimizer,
        inv_scale: Tensor,
        found_inf: Tensor,
        allow_fp16: bool,
    ) -> dict[torch.device, Tensor]:
        params = (p for group in optimizer.param_groups for p in group["params"])
        gradients = [local(p.grad) for p in params if p.grad is not None]
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, found_inf, inv_scale)
        comm.all_reduce_max(found_inf)
        return {found_inf.device: found_inf}
