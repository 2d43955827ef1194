"""The squared distance of directions against its equation and its invariances."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unlabeled.losses.normalized_mse import NormalizedMSE

V, B, K = 4, 3, 5


def random_case() -> tuple[Tensor, dict[int, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(V * B, K, generator=generator, dtype=torch.float64)
    targets = {crop: torch.randn(B, K, generator=generator, dtype=torch.float64) for crop in (0, 1)}
    return scores, targets


def by_the_equation(scores: Tensor, targets: dict[int, Tensor]) -> Tensor:
    total = scores.new_zeros(())
    for i, rows in targets.items():
        for v in range(V):
            for n in range(B):
                if v != i:
                    s, t = scores[v * B + n], rows[n]
                    distance = s / s.square().sum().sqrt() - t / t.square().sum().sqrt()
                    total = total + distance.square().sum() / (B * (V - 1) * len(targets))
    return total


def test_equals_the_equation_in_value_and_gradient() -> None:
    scores, targets = random_case()
    ours, theirs = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    loss = NormalizedMSE(NormalizedMSE.Config())(ours, targets, V)
    expected = by_the_equation(theirs, targets)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("angle", [0.0, 0.5, math.pi / 2, math.pi])
def test_two_directions_at_an_angle_cost_two_minus_two_cosines(angle: float) -> None:
    first = torch.tensor([[3.0, 0.0]])
    second = 7 * torch.tensor([[math.cos(angle), math.sin(angle)]])
    loss = NormalizedMSE(NormalizedMSE.Config())(torch.cat([second, first]), {1: first}, 2)
    assert float(loss) == pytest.approx(2 - 2 * math.cos(angle), abs=1e-6)


def test_lengths_and_targets_take_no_part_in_learning() -> None:
    scores, targets = random_case()
    loss = NormalizedMSE(NormalizedMSE.Config())
    torch.testing.assert_close(loss(5 * scores, targets, V), loss(scores, targets, V))
    learnable = {crop: rows.requires_grad_() for crop, rows in targets.items()}
    loss(scores.requires_grad_(), learnable, V).backward()
    assert all(rows.grad is None for rows in learnable.values())
    assert scores.grad is not None


def test_a_crop_is_not_compared_with_its_own_target() -> None:
    scores, targets = random_case()
    scores.requires_grad_()
    NormalizedMSE(NormalizedMSE.Config())(scores, {2: targets[0]}, V).backward()
    assert scores.grad is not None
    per_view = scores.grad.view(V, B, K).abs().sum(dim=(1, 2))
    assert per_view[2] == 0
    assert (per_view[[0, 1, 3]] > 0).all()
