"""Momentum SGD whose gradients are first rescaled tensor by tensor: what LARC and LARS share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, overload

import torch
from torch import Tensor

from unlabeled.distributed.shards import is_sharded, local, whole_norms

Norms = Callable[[list[Tensor]], Tensor]
"""Euclidean norms of tensors as one vector [P]."""


class LayerwiseSGD(torch.optim.Optimizer):
    """SGD on adapted gradients: u = adapt(p, g); m <- momentum m + u; p <- p - lr m.

    With `nesterov` the last step uses u + momentum m. The rate multiplies after the momentum, as in
    torch.optim.SGD. Parameters without a gradient are skipped and gradients are left as they are.
    All of it is a fixed number of multi-tensor operations: nothing is read back from the device.
    DDP: gradients are averaged before the step, so every rank computes the same update. Of sharded
    parameters each rank moves its rows, with the norms of the whole tensors.
    """

    def adapt(
        self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any], norms: Norms
    ) -> list[Tensor]:
        """Rescaled gradients of the parameters of one group; `grads` must not be changed.

        Of sharded tensors these are the rows of this rank; `norms` gives those of whole tensors.
        """
        raise NotImplementedError

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for params in _of_one_kind(group["params"]):
                grads = [local(p.grad) for p in params if p.grad is not None]
                norms = _norms_over_ranks if is_sharded(params[0]) else _norms
                rows = [local(p) for p in params]
                self._move(params, self.adapt(rows, grads, group, norms), group)
        return loss

    def _move(self, params: list[Tensor], updates: list[Tensor], group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        if momentum:
            buffers = [local(self._buffer(p)) for p in params]
            torch._foreach_mul_(buffers, momentum)
            torch._foreach_add_(buffers, updates)
            if group["nesterov"]:
                updates = list(torch._foreach_add(updates, buffers, alpha=momentum))
            else:
                updates = buffers
        torch._foreach_add_([local(p) for p in params], updates, alpha=-group["lr"])

    def _buffer(self, parameter: Tensor) -> Tensor:
        """Its momentum; zero at first, so the first update is the adapted gradient itself."""
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(
                parameter, memory_format=torch.preserve_format
            )
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def scaled(tensors: list[Tensor], factors: Tensor) -> list[Tensor]:
    """New tensors: tensors[i] * factors[i]."""
    return list(torch._foreach_mul(tensors, list(factors.unbind())))


def _norms(tensors: list[Tensor]) -> Tensor:
    return torch.stack(list(torch._foreach_norm(tensors)))


def _norms_over_ranks(tensors: list[Tensor]) -> Tensor:
    return whole_norms(_norms(tensors))


def _of_one_kind(params: list[Tensor]) -> Iterator[list[Tensor]]:
    """Parameters that have a gradient, in lists of one device and one type, sharded or not."""
    kinds: dict[tuple[torch.device, torch.dtype, bool], list[Tensor]] = {}
    for p in params:
        if p.grad is not None:
            kinds.setdefault((p.device, p.dtype, is_sharded(p)), []).append(p)
    yield from kinds.values()
