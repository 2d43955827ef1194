"""The clustering loss against its equation, the official loop and its invariances."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from unlabeled.losses.clustering import ClusteringLoss

DATA = Path(__file__).parents[1] / "data"
V, B = 4, 6
SIZES = (5, 9, 5)
RANKS = [("dcv2_train_w1", ""), ("dcv2_train_w2", "r0_"), ("dcv2_train_w2", "r1_")]


def make(temperature: float = 0.1) -> ClusteringLoss:
    return ClusteringLoss(ClusteringLoss.Config(temperature=temperature))


def random_case() -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = [torch.rand(V * B, k, generator=generator, dtype=torch.float64) * 2 - 1 for k in SIZES]
    labels = torch.stack([torch.randint(0, k, (B,), generator=generator) for k in SIZES])
    labels[0, 2] = labels[1, 2] = labels[1, 5] = -100
    return scores, labels


def by_the_equation(scores: list[Tensor], labels: Tensor, tau: float) -> Tensor:
    per_head = []
    for s, row in zip(scores, labels.tolist(), strict=True):
        terms = []
        for v in range(V):
            for n, label in enumerate(row):
                if label != -100:
                    e = (s[v * B + n] / tau).exp()
                    terms.append(-(e[label] / e.sum()).log())
        per_head.append(sum(terms[1:], terms[0]) / len(terms))
    return sum(per_head[1:], per_head[0]) / len(per_head)


def test_equals_the_equation_in_value_and_gradient() -> None:
    scores, labels = random_case()
    ours = [s.clone().requires_grad_() for s in scores]
    theirs = [s.clone().requires_grad_() for s in scores]
    loss, expected = make()(ours, labels, V), by_the_equation(theirs, labels, 0.1)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("file", "rank"), RANKS)
@pytest.mark.parametrize("iteration", range(8))
def test_reproduces_the_official_training_loop(file: str, rank: str, iteration: int) -> None:
    golden = np.load(DATA / f"{file}.npz", allow_pickle=False)
    images, epoch = int(golden["set_B"]), iteration // int(golden["set_nb"])
    emb = torch.from_numpy(golden[f"{rank}emb"][iteration]).requires_grad_()
    sets = [torch.from_numpy(golden[f"{rank}prototypes_ep{epoch}_h{h}"]) for h in range(3)]
    targets = torch.from_numpy(golden[f"{rank}targets"][iteration])  # [H, V*B]
    views = targets.shape[1] // images
    loss = make(float(golden["set_tau"]))([emb @ c.T for c in sets], targets[:, :images], views)
    loss.backward()
    expected = golden[f"{rank}loss"][iteration].item()
    torch.testing.assert_close(loss.item(), expected, rtol=2e-6, atol=0)
    gradient = torch.from_numpy(golden[f"{rank}grad_emb"][iteration])
    torch.testing.assert_close(emb.grad, gradient, rtol=1e-4, atol=2e-7)


def test_uniform_scores_cost_the_mean_ln_k() -> None:
    _, labels = random_case()
    loss = make()([torch.full((V * B, k), -0.2) for k in SIZES], labels, V)
    assert loss.item() == pytest.approx(sum(map(math.log, SIZES)) / len(SIZES), rel=1e-6)


def test_a_set_without_labels_contributes_zero_and_keeps_the_graph() -> None:
    scores, labels = random_case()
    labels[1] = -100
    leaves = [s.requires_grad_() for s in scores]
    loss = make()(leaves, labels, V)
    loss.backward()
    others = make()([leaves[0], leaves[2]], labels[[0, 2]], V)
    torch.testing.assert_close(loss, others * 2 / 3)
    assert leaves[1].grad is not None
    assert not leaves[1].grad.any()


def test_a_rank_without_any_label_has_zero_loss_and_zero_gradients() -> None:
    scores, labels = random_case()
    leaves = [s.requires_grad_() for s in scores]
    loss = make()(leaves, torch.full_like(labels, -100), V)
    loss.backward()
    assert loss.item() == 0
    assert all(s.grad is not None and not s.grad.any() for s in leaves)


def test_an_unlabelled_image_counts_for_nothing() -> None:
    scores, labels = random_case()
    labels[:, 2] = -100
    kept = [n for n in range(B) if n != 2]
    fewer = [s.view(V, B, -1)[:, kept].flatten(0, 1) for s in scores]
    torch.testing.assert_close(make()(scores, labels, V), make()(fewer, labels[:, kept], V))


def test_invariances() -> None:
    scores, labels = random_case()
    loss = make()(scores, labels, V)
    images = torch.randperm(B)
    shuffled = [s.view(V, B, -1)[:, images].flatten(0, 1) for s in scores]
    torch.testing.assert_close(make()(shuffled, labels[:, images], V), loss)
    shift = torch.arange(V * B, dtype=torch.float64)[:, None]
    torch.testing.assert_close(make()([s + shift for s in scores], labels, V), loss)
    torch.testing.assert_close(make()(scores[::-1], labels.flip(0), V), loss)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tau", [0.001, 0.1])
def test_half_scores_are_computed_in_float32(dtype: torch.dtype, tau: float) -> None:
    scores, labels = random_case()
    half = [s.to(dtype) for s in scores]
    for s in half:
        s[0] = torch.eye(s.shape[1], dtype=dtype)[0]
        s.requires_grad_()
    loss = make(tau)(half, labels, V)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert all(s.grad is not None and s.grad.isfinite().all() for s in half)
    torch.testing.assert_close(loss, make(tau)([s.detach().float() for s in half], labels, V))


def test_autocast_changes_nothing() -> None:
    scores, labels = random_case()
    single = [s.float() for s in scores]
    plain = make()(single, labels, V)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = make()(single, labels, V)
    assert torch.equal(plain, lowered)


def test_a_temperature_that_is_not_positive_is_a_fault() -> None:
    faults = list(ClusteringLoss.Config(temperature=0.0).problems())
    assert [field for field, _ in faults] == ["temperature"]
    assert not list(ClusteringLoss.Config().problems())
