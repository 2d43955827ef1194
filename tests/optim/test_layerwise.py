from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests_support.ranks import run_ranks
from unlabeled.optim.layerwise import LayerwiseSGD
from unlabeled.optim.optimizers.larc import LARC
from unlabeled.optim.optimizers.lars import LARS

BOTH = [
    pytest.param(lambda named: LARC(LARC.Config(), named_parameters=named), id="larc"),
    pytest.param(lambda named: LARS(LARS.Config(), named_parameters=named), id="lars"),
]
Maker = Callable[[list[tuple[str, nn.Parameter]]], LayerwiseSGD]


def with_gradients(
    count: int, dtype: torch.dtype = torch.float32
) -> list[tuple[str, nn.Parameter]]:
    params = [nn.Parameter(torch.randn(3, 2 + i, dtype=dtype)) for i in range(count)]
    for p in params:
        p.grad = torch.randn_like(p)
    return [(f"p{i}.weight", p) for i, p in enumerate(params)]


def step(optimizer: LayerwiseSGD, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()


@pytest.mark.parametrize("make", BOTH)
def test_gradients_are_left_as_they_are(make: Maker) -> None:
    named = with_gradients(2)
    before = [p.grad.clone() for _, p in named if p.grad is not None]
    optimizer = make(named)
    step(optimizer, 0.1)
    step(optimizer, 0.1)
    for (_, p), grad in zip(named, before, strict=True):
        assert p.grad is not None and torch.equal(p.grad, grad)


@pytest.mark.parametrize("make", BOTH)
def test_a_parameter_without_gradient_keeps_value_and_momentum(make: Maker) -> None:
    named = with_gradients(2)
    optimizer = make(named)
    step(optimizer, 0.1)
    still = named[0][1]
    still.grad = None
    value, momentum = still.detach().clone(), optimizer.state[still]["momentum_buffer"].clone()
    step(optimizer, 0.1)
    assert torch.equal(still, value)
    assert torch.equal(optimizer.state[still]["momentum_buffer"], momentum)


@pytest.mark.parametrize("make", BOTH)
def test_types_may_be_mixed_and_do_not_influence_each_other(make: Maker) -> None:
    named = [*with_gradients(2), *with_gradients(2, torch.float64)]
    alone = [(name, nn.Parameter(p.detach().clone())) for name, p in named]
    for (_, p), (_, q) in zip(named, alone, strict=True):
        assert p.grad is not None
        q.grad = p.grad.clone()
    step(make(named), 0.1)
    for parameter in alone:
        step(make([parameter]), 0.1)
    for (_, p), (_, q) in zip(named, alone, strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize("make", BOTH)
def test_a_step_reads_nothing_back_from_the_device(make: Maker) -> None:
    class Recorder(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.seen: set[str] = set()

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self.seen.add(str(func))
            return func(*args, **(kwargs or {}))

    optimizer = make(with_gradients(3))
    with Recorder() as recorder:
        step(optimizer, 0.1)
    assert recorder.seen
    assert not [op for op in recorder.seen if "_local_scalar_dense" in op or "is_nonzero" in op]


@pytest.mark.parametrize("make", BOTH)
def test_a_closure_is_evaluated_with_gradients_and_its_loss_returned(make: Maker) -> None:
    named = with_gradients(1)
    optimizer = make(named)
    assert optimizer.step(lambda: float((named[0][1] ** 2).sum().requires_grad)) == 1.0


def sharded_steps(name: str, shard: bool) -> list[torch.Tensor]:
    """Full parameters after three steps, trained whole or sharded over the ranks."""
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    if shard:
        fully_shard(model)
    named = list(model.named_parameters())
    optimizer: LayerwiseSGD = (
        LARC(LARC.Config(weight_decay=0.01), named_parameters=named)
        if name == "larc"
        else LARS(LARS.Config(weight_decay=0.01), named_parameters=named)
    )
    for t in range(3):
        inputs = torch.randn(8, 5, generator=torch.Generator().manual_seed(t))
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        step(optimizer, 10.0)
    return [getattr(p, "full_tensor", lambda p=p: p)().detach() for p in model.parameters()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["larc", "lars"])
def test_sharded_parameters_move_by_the_norms_of_the_whole_tensors(name: str) -> None:
    whole = sharded_steps(name, False)
    for rank in run_ranks(sharded_steps, 2, name, True):
        for expected, actual in zip(whole, rank, strict=True):
            torch.testing.assert_close(actual, expected)
