"""The blocked log-sum-exp against the matrix it never builds."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unlabeled.losses.info_nce_blocks import negatives_logsumexp


def random_case() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    anchors = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    candidates = torch.randn(11, 4, generator=generator, dtype=torch.float64)
    excluded = torch.stack([torch.randperm(11, generator=generator)[:3] for _ in range(7)])
    return anchors.requires_grad_(), candidates.requires_grad_(), excluded


@pytest.mark.parametrize("block_rows", [1, 2, 3, 6, 7, 8, 100])
def test_equals_a_masked_logsumexp_with_any_upstream_gradient(block_rows: int) -> None:
    anchors, candidates, excluded = random_case()
    upstream = torch.linspace(-1, 2, 7, dtype=torch.float64)
    keep = torch.ones(7, 11, dtype=torch.bool).scatter(1, excluded, False)
    expected = torch.stack(
        [((candidates[keep[i]] @ anchors[i]) / 0.3).exp().sum().log() for i in range(7)]
    )
    expected_gradients = torch.autograd.grad(expected, [anchors, candidates], upstream)
    result = negatives_logsumexp(anchors, candidates, excluded, 0.3, block_rows)
    gradients = torch.autograd.grad(result, [anchors, candidates], upstream)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-10, atol=1e-14)


def test_an_anchor_without_negatives_leaves_the_others_alone() -> None:
    anchors, candidates, _ = random_case()
    excluded = torch.arange(10).repeat(7, 1)  # candidate 10 is the only negative ...
    excluded[3, 0] = 10
    everything = torch.cat([excluded, excluded[:, :1]], dim=1)
    everything[3, -1] = 0  # ... and anchor 3 has none
    result = negatives_logsumexp(anchors, candidates, everything, 1.0, 2)
    assert result[3].item() == -math.inf
    weights = torch.ones(7, dtype=torch.float64)
    weights[3] = 0
    result.backward(weights)
    assert anchors.grad is not None and candidates.grad is not None
    assert not anchors.grad[3].any()
    others = [i for i in range(7) if i != 3]
    # A single negative: the log-sum-exp is the similarity itself.
    torch.testing.assert_close(result[others], (anchors @ candidates[10])[others])
    torch.testing.assert_close(anchors.grad[others], candidates[10].expand(6, 4))
    torch.testing.assert_close(candidates.grad[10], anchors[others].sum(dim=0))
    assert not candidates.grad[:10].any()


def test_large_similarities_do_not_overflow() -> None:
    anchors = torch.ones(2, 1, requires_grad=True)
    candidates = torch.tensor([[1.0], [1.0], [-1.0]])
    result = negatives_logsumexp(anchors, candidates, torch.tensor([[2], [2]]), 0.001, 1)
    result.sum().backward()
    torch.testing.assert_close(result, torch.full((2,), 1000 + math.log(2)))
    # Near 1000 float32 numbers lie 6e-5 apart, which is the error of a softmax weight.
    torch.testing.assert_close(anchors.grad, torch.full((2, 1), 1000.0), rtol=1e-4, atol=0)


def test_autocast_changes_neither_value_nor_gradient() -> None:
    inputs = [t.detach().float() for t in random_case()[:2]]
    excluded, outcomes = random_case()[2], []
    for enabled in (False, True):
        leaves = [t.clone().requires_grad_() for t in inputs]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            result = negatives_logsumexp(*leaves, excluded, 0.1, 3)
            result.sum().backward()
        outcomes.append([result, *(t.grad for t in leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


def test_what_is_shared_with_autograd_is_not_written_to() -> None:
    anchors, candidates, excluded = random_case()
    copies = [t.detach().clone() for t in (anchors, candidates)]
    negatives_logsumexp(anchors, candidates, excluded, 0.5, 3).sum().backward()
    assert torch.equal(anchors, copies[0])
    assert torch.equal(candidates, copies[1])
