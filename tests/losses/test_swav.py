"""SwAV's loss against its equation, the official code's numbers and its invariances."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from unlabeled.losses.swav import SwAVLoss

DATA = Path(__file__).parents[1] / "data"
V, B, K = 5, 6, 7


def make(temperature: float = 0.1) -> SwAVLoss:
    return SwAVLoss(SwAVLoss.Config(temperature=temperature))


def random_case(seed: int = 0) -> tuple[Tensor, dict[int, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(V * B, K, generator=generator, dtype=torch.float64) * 2 - 1
    codes = {
        crop: torch.rand(B, K, generator=generator, dtype=torch.float64).softmax(dim=1)
        for crop in (0, 1)
    }
    return scores, codes


def by_the_equation(scores: Tensor, codes: dict[int, Tensor], tau: float) -> Tensor:
    total = scores.new_zeros(())
    for i, q in codes.items():
        for v in range(V):
            if v == i:
                continue
            for n in range(B):
                row = scores[v * B + n] / tau
                norm = row.exp().sum()
                for k in range(K):
                    total = total - q[n, k] * (row[k].exp() / norm).log() / (V - 1) / B
    return total / len(codes)


@pytest.mark.parametrize("crops", [(0, 1), (0,), (3,), (0, 2, 4)])
@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_equals_the_equation_in_value_and_gradient(crops: tuple[int, ...], tau: float) -> None:
    scores, codes = random_case()
    codes = {crop: codes[crop % 2].roll(crop, dims=1) for crop in crops}
    ours, theirs = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    loss, expected = make(tau)(ours, codes, V), by_the_equation(theirs, codes, tau)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("file", ["swav_train_noqueue_w1", "swav_train_queue_w1"])
@pytest.mark.parametrize("iteration", range(8))
def test_reproduces_the_official_training_loop(file: str, iteration: int) -> None:
    golden = np.load(DATA / f"{file}.npz", allow_pickle=False)
    images, views = int(golden["set_B"]), golden["inputs"].shape[1]
    scores = torch.from_numpy(golden["out"][iteration]).requires_grad_()
    codes = {
        crop: torch.from_numpy(golden[f"it{iteration}_a{crop}_q"][-images:]) for crop in (0, 1)
    }
    loss = make(float(golden["set_tau"]))(scores, codes, views)
    loss.backward()
    torch.testing.assert_close(loss.item(), golden["loss"][iteration].item(), rtol=2e-6, atol=0)
    expected = torch.from_numpy(golden["grad_out"][iteration])
    torch.testing.assert_close(scores.grad, expected, rtol=1e-4, atol=2e-7)


def test_uniform_scores_cost_ln_k() -> None:
    _, codes = random_case()
    loss = make()(torch.full((V * B, K), 0.3), codes, V)
    assert loss.item() == pytest.approx(math.log(K), rel=1e-6)


def test_a_constant_added_to_a_row_changes_nothing() -> None:
    scores, codes = random_case()
    shift = torch.arange(V * B, dtype=torch.float64)[:, None]
    torch.testing.assert_close(make()(scores + shift, codes, V), make()(scores, codes, V))


def test_the_order_of_images_and_of_prototypes_does_not_matter() -> None:
    scores, codes = random_case()
    images, prototypes = torch.randperm(B), torch.randperm(K)
    shuffled = scores.view(V, B, K)[:, images][:, :, prototypes].reshape(V * B, K)
    shuffled_codes = {crop: q[images][:, prototypes] for crop, q in codes.items()}
    torch.testing.assert_close(make()(shuffled, shuffled_codes, V), make()(scores, codes, V))


def test_codes_are_targets_without_gradient() -> None:
    scores, codes = random_case()
    learnable = {crop: q.clone().requires_grad_() for crop, q in codes.items()}
    make()(scores.requires_grad_(), learnable, V).backward()
    assert all(q.grad is None for q in learnable.values())


def test_a_crop_is_not_compared_with_its_own_code() -> None:
    scores, codes = random_case()
    scores.requires_grad_()
    make()(scores, {2: codes[0]}, V).backward()
    assert scores.grad is not None
    per_view = scores.grad.view(V, B, K).abs().sum(dim=(1, 2))
    assert per_view[2] == 0
    assert (per_view[[0, 1, 3, 4]] > 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tau", [0.001, 0.1])
def test_half_scores_are_computed_in_float32(dtype: torch.dtype, tau: float) -> None:
    scores, codes = random_case()
    half = scores.to(dtype)
    half[0] = torch.eye(K, dtype=dtype)[0]  # a crop on top of a prototype: logits 1 / tau and 0
    half.requires_grad_()
    loss = make(tau)(half, codes, V)
    loss.backward()
    assert loss.dtype == torch.float32
    assert half.grad is not None
    assert loss.isfinite() and half.grad.isfinite().all()
    torch.testing.assert_close(loss, make(tau)(half.detach().float(), codes, V))


def test_autocast_changes_nothing() -> None:
    scores, codes = random_case()
    scores = scores.float()
    plain = make()(scores, codes, V)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = make()(scores, codes, V)
    assert torch.equal(plain, lowered)


@pytest.mark.parametrize("temperature", [0.0, -0.1])
def test_a_temperature_that_is_not_positive_is_a_fault(temperature: float) -> None:
    faults = list(SwAVLoss.Config(temperature=temperature).problems())
    assert [field for field, _ in faults] == ["temperature"]
    assert str(temperature) in faults[0][1]
    assert not list(SwAVLoss.Config().problems())
