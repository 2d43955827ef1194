"""Norms, clipping and updates of tensors in shards are those of the whole tensors."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from tests_support.ranks import run_ranks
from unlabeled.distributed import comm
from unlabeled.distributed.shards import (
    ShardedGradScaler,
    clip_each_grad,
    clip_grad_norm,
    gradient_norm,
    is_sharded,
    local,
    own_rows,
    whole_norms,
)
from unlabeled.optim.optimizers.adamw import AdamW
from unlabeled.optim.optimizers.larc import LARC
from unlabeled.optim.optimizers.lars import LARS
from unlabeled.optim.optimizers.sgd import SGD
from unlabeled.registry import names

DATA = Path(__file__).parents[1] / "data"
SHAPES = [(5, 3), (1, 4), (8, 2, 3, 3), (6,), (2, 2)]
"""On two ranks: uneven rows, a rank without any, convolutions, a bias, zeros at the start."""
OPTIMIZERS = {"larc": LARC, "lars": LARS, "sgd": SGD, "adamw": AdamW}
EQUAL = 1e-6


def pairs() -> list[tuple[str, nn.Parameter, nn.Parameter]]:
    """Parameters with gradients, whole and (those of two dimensions and more) in shards."""
    mesh = init_device_mesh("cpu", (comm.world_size(),))
    generator = torch.Generator().manual_seed(0)
    found = []
    for number, shape in enumerate(SHAPES):
        value, gradient = (torch.randn(shape, generator=generator) for _ in range(2))
        if number == len(SHAPES) - 1:
            value.zero_()
        whole = nn.Parameter(value.clone())
        whole.grad = gradient.clone()
        shards = nn.Parameter(value.clone())
        shards.grad = gradient.clone()
        if len(shape) > 1:
            shards = nn.Parameter(distribute_tensor(value, mesh, [Shard(0)]))
            shards.grad = distribute_tensor(gradient, mesh, [Shard(0)])
        found.append((f"layer{number}.weight", whole, shards))
    return found


def full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[operator]


def _rows() -> list[int]:
    for _, whole, shards in pairs():
        rows = own_rows(len(whole)) if is_sharded(shards) else slice(None)
        assert torch.equal(local(shards), whole[rows])
    counts: list[int] = comm.all_gather_objects(own_rows(5).stop - own_rows(5).start)
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_rows_are_those_that_fsdp_gives_a_rank(ranks: int) -> None:
    assert sum(run_ranks(_rows, ranks)[0]) == 5


def _updates() -> list[str]:
    different = []
    for name, cls in OPTIMIZERS.items():
        made = pairs()
        optimizers = [
            cls(cls.Config(), named_parameters=[(p[0], p[side]) for p in made]) for side in (1, 2)
        ]
        for lr in (0.3, 0.2, 0.1):
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = lr
                optimizer.step()
        for key, whole, shards in made:
            found = float((full(shards) - whole).detach().abs().max())
            if found > EQUAL * max(1.0, float(whole.detach().abs().max())):
                different.append(f"{name} {key}: {found}")
    return different


@pytest.mark.slow
def test_three_updates_of_every_optimizer_are_those_of_whole_parameters() -> None:
    assert set(OPTIMIZERS) == set(names("optimizer"))
    assert run_ranks(_updates, 2) == [[], []]


def _clipped(max_norm: float) -> tuple[float, float, float]:
    made = pairs()
    expected = torch.nn.utils.clip_grad_norm_([whole for _, whole, _ in made], max_norm)
    found = clip_grad_norm([shards for _, _, shards in made], max_norm)
    worst = 0.0
    for _, whole, shards in made:
        assert whole.grad is not None
        assert shards.grad is not None
        worst = max(worst, float((full(shards.grad) - whole.grad).abs().max()))
    return float(expected), float(found), worst


@pytest.mark.slow
def test_clipping_takes_the_norm_over_all_ranks() -> None:
    for max_norm in (0.1, 1000.0):
        for expected, found, worst in run_ranks(_clipped, 2, max_norm):
            assert found == pytest.approx(expected, rel=EQUAL)
            assert worst < EQUAL


@pytest.mark.parametrize("max_norm", [3.0, 0.3])
def test_clipping_each_gradient_is_that_of_the_official_dino(max_norm: float) -> None:
    with np.load(DATA / "dino_misc.npz", allow_pickle=False) as file:
        golden = dict(file)
    names_of = golden["clip_names"].tolist()
    parameters = []
    for name in names_of:
        parameters.append(nn.Parameter(torch.zeros(golden[f"clip_grad_in_{name}"].shape)))
        parameters[-1].grad = torch.from_numpy(golden[f"clip_grad_in_{name}"])
    before = [p.grad.clone() for p in parameters if p.grad is not None]
    clip_each_grad([*parameters, nn.Parameter(torch.ones(2))], max_norm)  # one has no gradient
    for name, parameter in zip(names_of, parameters, strict=True):
        expected = torch.from_numpy(golden[f"clip{max_norm}_grad_out_{name}"])
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-5, atol=1e-7, msg=name)
    changed = [not torch.equal(b, p.grad) for b, p in zip(before, parameters, strict=True)]
    assert changed == (golden[f"clip{max_norm}_norms"] > max_norm).tolist()


def _each_clipped() -> float:
    """The largest difference between shards and whole gradients, some of them shorter."""
    made, worst = pairs(), 0.0
    for side in (1, 2):
        clip_each_grad([pair[side] for pair in made], 2.0)
    lengths = []
    for _, whole, shards in made:
        assert whole.grad is not None
        assert shards.grad is not None
        lengths.append(float(whole.grad.norm()))
        worst = max(worst, float((full(shards.grad) - whole.grad).abs().max()))
    assert min(lengths) < 1.99 and max(lengths) == pytest.approx(2.0, rel=1e-5)
    return worst


@pytest.mark.slow
def test_clipping_each_gradient_takes_its_norm_over_all_ranks() -> None:
    assert max(run_ranks(_each_clipped, 2)) < EQUAL


def _overflow(rank_at_fault: int) -> tuple[float, bool]:
    [(_, _, shards)] = pairs()[:1]
    optimizer = torch.optim.SGD([shards], lr=0.1)
    before = local(shards).detach().clone()
    scaler = ShardedGradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.zeros(()))  # as a backward pass would have
    assert shards.grad is not None
    if comm.rank() == rank_at_fault:
        local(shards.grad)[0, 0] = math.inf
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    return scaler.get_scale(), torch.equal(local(shards), before)


@pytest.mark.slow
@pytest.mark.parametrize("rank_at_fault", [0, 1])
def test_an_overflow_on_one_rank_costs_all_ranks_the_step(rank_at_fault: int) -> None:
    assert run_ranks(_overflow, 2, rank_at_fault) == [(4.0, True)] * 2


def test_without_an_overflow_the_step_is_taken_with_unscaled_gradients() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    scaler = ShardedGradScaler("cpu", init_scale=8.0)
    scaler.scale(weight.sum()).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    assert torch.equal(weight.detach(), torch.full((3,), 0.5))


def test_norms_are_exact_where_squares_leave_float32() -> None:
    for scale in (1e-30, 1.0, 1e30):
        assert float(whole_norms(torch.tensor([3.0 * scale]))) == pytest.approx(3 * scale)
    assert float(gradient_norm([torch.tensor([3.0]), torch.tensor([[4.0]])])) == pytest.approx(5)
    assert float(gradient_norm([])) == 0.0
