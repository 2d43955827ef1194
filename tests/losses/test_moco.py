"""MoCo's loss against its equation, cross-entropy, closed forms and VISSL's numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests_support.ranks import run_ranks
from unlabeled.distributed import comm
from unlabeled.losses.moco import MoCoLoss
from unlabeled.methods.key_queue import KeyQueue

GOLDEN = Path(__file__).parents[1] / "data" / "vissl_moco.npz"


def make(**fields: Any) -> MoCoLoss:
    return MoCoLoss(MoCoLoss.Config(**fields))


def unit(rows: int, dim: int = 8, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1)


def by_the_equation(
    q: Tensor, crops: list[int], keys: dict[int, Tensor], queue: Tensor, tau: float
) -> Tensor:
    """Every pair of a query and a key of another crop, term by term."""
    images, terms = len(q) // len(crops), []
    for place, crop in enumerate(crops):
        for key_crop, rows in keys.items():
            for n in range(images if key_crop != crop else 0):
                query = q[place * images + n]
                positive = (query @ rows[n] / tau).exp()
                negatives = sum((query @ old / tau).exp() for old in queue)
                terms.append(-(positive / (positive + negatives)).log())
    return torch.stack(terms).mean()


@pytest.mark.parametrize(
    ("crops", "key_crops"), [([0], [1]), ([0, 1], [0, 1]), ([0, 2, 3], [1]), ([0, 1, 2], [0, 1])]
)
@pytest.mark.parametrize("tau", [0.07, 0.7])
def test_equals_the_equation_in_value_and_gradient(
    crops: list[int], key_crops: list[int], tau: float
) -> None:
    keys = {crop: unit(4, seed=10 + crop) for crop in key_crops}
    queue = unit(12, seed=99)
    ours, theirs = (unit(4 * len(crops)).requires_grad_() for _ in range(2))
    loss = make(temperature=tau)(ours, crops, keys, queue)
    expected = by_the_equation(theirs, crops, keys, queue, tau)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-14)


def test_one_pair_is_the_official_cross_entropy() -> None:
    q, k, queue = unit(6), unit(6, seed=1), unit(20, seed=2)
    logits = torch.cat([(q * k).sum(dim=1, keepdim=True), q @ queue.T], dim=1) / 0.2
    expected = F.cross_entropy(logits, torch.zeros(6, dtype=torch.int64))
    torch.testing.assert_close(make()(q, [0], {1: k}, queue), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("block_rows", [1, 5, 6, 100])
def test_the_block_size_does_not_matter(block_rows: int) -> None:
    q, k, queue = unit(6), unit(6, seed=1), unit(20, seed=2)
    expected = make()(q, [0], {1: k}, queue)
    found = make(block_rows=block_rows)(q, [0], {1: k}, queue)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)


def test_closed_forms() -> None:
    axes = torch.eye(8, dtype=torch.float64)
    right = make(temperature=0.5)(axes[:2], [0], {1: axes[:2]}, axes[2:])
    assert float(right) == pytest.approx(math.log(1 + 6 * math.exp(-1 / 0.5)), rel=1e-12)
    collapsed = axes[:1].expand(4, 8)
    assert float(make()(collapsed, [0], {1: collapsed}, axes[:1].expand(63, 8))) == pytest.approx(
        math.log(64), rel=1e-12
    )


def test_keys_and_queue_get_no_gradient_and_the_loss_is_float32() -> None:
    keys, queue = unit(4, seed=1).requires_grad_(), unit(9, seed=2).requires_grad_()
    half = unit(4).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = make()(half, [0], {1: keys}, queue)
    loss.backward()
    assert loss.dtype is torch.float32
    assert keys.grad is None and queue.grad is None
    assert half.grad is not None and bool(half.grad.isfinite().all())
    exact = make()(half.detach().float(), [0], {1: keys.float()}, queue.float())
    torch.testing.assert_close(loss.detach(), exact.detach(), rtol=1e-6, atol=0)


def _as_vissl() -> None:
    """Five steps of VISSL's MoCo loss with its queue, on this rank."""
    world = comm.world_size()
    with np.load(GOLDEN, allow_pickle=False) as file:
        prefix = f"w{world}_r{comm.rank()}_"
        golden = {k.removeprefix(prefix): file[k] for k in file.files if k.startswith(prefix)}
        size, temperature = int(file["set_Q"]), float(file["set_T"])
    rows = world * golden["key_normalised"].shape[1]
    queue = KeyQueue(wanted=size, block=rows, dim=golden["queue0"].shape[0])
    queue.keys.copy_(torch.from_numpy(golden["queue0"]).T)
    for step in range(len(golden["loss"])):
        query = torch.from_numpy(golden["query_unnormalised"][step]).requires_grad_()
        key = torch.from_numpy(golden["key_normalised"][step])
        loss = make(temperature=temperature)(F.normalize(query, dim=1), [0], {1: key}, queue.keys)
        loss.backward()
        queue.push(comm.all_gather(key))
        assert float(loss.detach()) == pytest.approx(float(golden["loss"][step]), abs=2e-6)
        assert query.grad is not None
        np.testing.assert_allclose(query.grad, golden["grad_query"][step], rtol=0, atol=2e-6)
        np.testing.assert_allclose(queue.keys.T, golden["queue_after"][step], rtol=0, atol=0)
        assert int(queue.next_row) == int(golden["ptr_after"][step])


def test_reproduces_vissl_on_one_rank() -> None:
    _as_vissl()


@pytest.mark.slow
def test_reproduces_vissl_on_two_ranks() -> None:
    run_ranks(_as_vissl, 2)


@pytest.mark.parametrize("field", ["temperature", "block_rows"])
def test_values_out_of_range_are_named(field: str) -> None:
    [(name, text)] = MoCoLoss.Config(**{field: 0}).problems()
    assert name == field and "got 0" in text
