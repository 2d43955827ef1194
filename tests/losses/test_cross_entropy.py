"""The supervised loss against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unlabeled.losses.cross_entropy import CrossEntropyLoss

V, B, C = 3, 5, 4


def make(label_smoothing: float = 0.0) -> CrossEntropyLoss:
    return CrossEntropyLoss(CrossEntropyLoss.Config(label_smoothing=label_smoothing))


def random_case() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(V * B, C, generator=generator, dtype=torch.float64)
    return logits, torch.tensor([0, 3, 1, 2, 2])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_equals_the_definition_in_value_and_gradient(smoothing: float) -> None:
    logits, labels = random_case()
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    expected = theirs.new_zeros(())
    for v in range(V):
        for n in range(B):
            p = theirs[v * B + n].exp() / theirs[v * B + n].exp().sum()
            for c in range(C):
                target = (1 - smoothing) * float(c == labels[n]) + smoothing / C
                expected = expected - target * p[c].log() / (V * B)
    loss = make(smoothing)(ours, labels, V)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_uniform_logits_cost_ln_c(smoothing: float) -> None:
    _, labels = random_case()
    loss = make(smoothing)(torch.full((V * B, C), 7.0), labels, V)
    assert loss.item() == pytest.approx(math.log(C), rel=1e-6)


def test_images_without_a_label_count_for_nothing() -> None:
    logits, labels = random_case()
    unknown = labels.clone()
    unknown[1] = -100
    kept = [0, 2, 3, 4]
    fewer = logits.view(V, B, C)[:, kept].flatten(0, 1)
    torch.testing.assert_close(make(0.1)(logits, unknown, V), make(0.1)(fewer, labels[kept], V))


def test_a_batch_without_labels_has_zero_loss_and_a_zero_gradient() -> None:
    logits, labels = random_case()
    logits.requires_grad_()
    loss = make(0.1)(logits, torch.full_like(labels, -100), V)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_half_logits_stay_finite(dtype: torch.dtype) -> None:
    logits, labels = random_case()
    half = (logits * 10_000).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = make()(half, labels, V)
    loss.backward()
    assert loss.dtype == torch.float32
    assert half.grad is not None
    assert loss.isfinite() and half.grad.isfinite().all()
    torch.testing.assert_close(loss, make()(half.detach().float(), labels, V))


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_a_label_smoothing_outside_0_to_1_is_a_fault(value: float) -> None:
    faults = list(CrossEntropyLoss.Config(label_smoothing=value).problems())
    assert [field for field, _ in faults] == ["label_smoothing"]
    assert not list(CrossEntropyLoss.Config().problems())
