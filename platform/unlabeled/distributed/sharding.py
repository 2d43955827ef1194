"""Parameters, gradients and optimizer state divided among the ranks: FSDP2."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard

from unlabeled.distributed import comm
from unlabeled.distributed.parallel import Parallel
from unlabeled.distributed.shards import (
    ShardedGradScaler,
    clip_grad_norm,
    own_rows,
)


class ShardedParallel(Parallel):
    """Every rank holds some rows of each large parameter, and gathers a unit while it computes.

    units: modules of `module`, inner ones first, that are gathered at once when they are called;
    what is left belongs to `module` as a whole. Parameters of fewer than two dimensions, and all of
    the modules `whole`, stay on every rank in their own type: biases and normalisation layers are
    small, and prototypes are read and written outside of any forward pass. Their gradients travel
    together when the last backward pass is over.
    divided: parameters that are never gathered and whose gradients are left alone: their owner
    computes with this rank's rows (`shards.differentiable_rows`).
    dtype: the type in which parameters are gathered, that of the engine's autocast; gradients are
    summed in float32 and shards stay float32.
    Gradients are means over ranks as with DDP; of an accumulated step every micro-batch is reduced
    at once, so no rank ever holds the gradient of the whole module.
    All ranks build it together. The module's parameters are DTensors afterwards.
    """

    grad_scaler = ShardedGradScaler

    def __init__(
        self,
        module: nn.Module,
        *,
        units: Sequence[nn.Module],
        whole: Collection[nn.Parameter],
        divided: Collection[nn.Parameter],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(module)
        # Features are a view of the pooled map; nothing here changes them in place.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
        kept = set(whole)
        self._whole = [p for p in module.parameters() if p in kept]
        mesh = device_mesh(device)
        left_alone = kept | divide_parameters(module, divided, mesh)
        half = None if dtype is torch.float32 else dtype
        policy = MixedPrecisionPolicy(
            # Activations are autocast's business: it leaves to float32 what needs it.
            param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False
        )  # fmt: skip
        self._root = _Root(module)
        for unit in (*units, self._root):
            fully_shard(unit, mesh=mesh, mp_policy=policy, ignored_params=left_alone)

    def start(self) -> None:
        """Fix which module is the outermost one; once, when the shards have their values.

        FSDP takes the first that runs for it, and a method may call its backbone alone first.
        """
        self._root(_nothing)

    def __call__(self, *args: Any) -> Any:
        return self._root(self.module, *args)

    def accumulating(self) -> AbstractContextManager[Any]:
        return nullcontext()

    @torch.no_grad()
    def complete_gradients(self) -> None:
        """Average the gradients of the parameters that every rank holds, in one all-reduce."""
        gradients = [p.grad for p in self._whole if p.grad is not None]
        if not gradients:
            return
        flat = torch.cat([g.flatten() for g in gradients]) / comm.world_size()
        comm.all_reduce_sum(flat)
        means = torch.split(flat, [g.numel() for g in gradients])
        torch._foreach_copy_(
            gradients, [m.view_as(g) for m, g in zip(means, gradients, strict=True)]
        )

    def clip_grad_norm(self, max_norm: float) -> Tensor:
        return clip_grad_norm(self.module.parameters(), max_norm)


class _Root(nn.Module):
    """Calls what it is given; FSDP adds its hooks here, and the module's class stays its own."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


def _nothing() -> None:
    """A forward pass of no module."""


def device_mesh(device: torch.device) -> DeviceMesh:
    """All ranks in a row."""
    return init_device_mesh(device.type, (comm.world_size(),))


def divide_parameters(
    module: nn.Module, parameters: Collection[nn.Parameter], mesh: DeviceMesh
) -> set[nn.Parameter]:
    """Put this rank's rows in the place of some parameters of `module`; returns what is there now.

    As shards they have the shape of all rows, for the optimizer, checkpoints and whoever asks.
    """
    made = set()
    for owner in module.modules():
        for name, parameter in list(owner.named_parameters(recurse=False)):
            if parameter in parameters:
                shards = DTensor.from_local(
                    parameter.detach()[own_rows(len(parameter))].clone(),
                    mesh, [Shard(0)], shape=parameter.shape, stride=parameter.stride(),
                )  # fmt: skip
                owner.register_parameter(name, nn.Parameter(shards, parameter.requires_grad))
                made.add(owner.get_parameter(name))
    return made


def from_rows(rows: Tensor, like: Tensor) -> Tensor:
    """The sharded tensor of which this rank holds `rows`, divided as `like` is."""
    assert isinstance(like, DTensor)
    made: Tensor = DTensor.from_local(
        rows, like.device_mesh, [Shard(0)], shape=like.shape, stride=like.stride()
    )
    return made


def gathered(rows: Tensor, shape: torch.Size) -> Tensor:
    """The whole tensor of which every rank holds its `own_rows`."""
    full = torch.zeros(shape, dtype=rows.dtype, device=rows.device)
    full[own_rows(shape[0])] = rows
    return comm.all_reduce_sum(full)
