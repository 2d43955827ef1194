"""BYOL's loss against its equation, closed forms and invariances."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unlabeled.losses.byol import BYOLLoss


def loss_of(predictions: Tensor, targets: dict[int, Tensor], views: int) -> Tensor:
    loss: Tensor = BYOLLoss(BYOLLoss.Config())(predictions, targets, views)
    return loss


def rows(count: int, seed: int = 0, dim: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(count, dim, generator=generator, dtype=torch.float64)


def by_the_equation(predictions: Tensor, targets: dict[int, Tensor], views: int) -> Tensor:
    """Squared distances of unit vectors, pair by pair and image by image."""
    images = len(predictions) // views
    total = predictions.new_zeros(())
    for crop, target in targets.items():
        for view in range(views):
            for n in range(images if view != crop else 0):
                p, t = predictions[view * images + n], target[n]
                distance = (p / p.norm() - t / t.norm()).square().sum()
                total = total + distance / (images * (views - 1))
    return total


@pytest.mark.parametrize(("views", "crops"), [(2, [0, 1]), (2, [1]), (4, [0, 1]), (5, [0, 2])])
def test_equals_the_equation_in_value_and_gradient(views: int, crops: list[int]) -> None:
    targets = {crop: rows(3, seed=9 + crop) for crop in crops}
    ours, theirs = (rows(3 * views).requires_grad_() for _ in range(2))
    loss, expected = loss_of(ours, targets, views), by_the_equation(theirs, targets, views)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize(("factor", "expected"), [(1.0, 0.0), (0.2, 0.0), (-3.0, 8.0)])
def test_same_direction_is_nothing_and_the_opposite_is_eight(
    factor: float, expected: float
) -> None:
    first, second = rows(4), rows(4, seed=1)
    predictions = factor * torch.cat([second, first])  # each view predicts the other
    found = loss_of(predictions, {0: first, 1: second}, 2)
    assert float(found) == pytest.approx(expected, abs=1e-12)


def test_right_angles_are_four() -> None:
    axes = torch.eye(4, dtype=torch.float64)
    found = loss_of(axes[:2], {0: axes[2:3], 1: axes[3:]}, 2)
    assert float(found) == 4.0


def test_lengths_do_not_matter_so_the_gradient_is_at_right_angles() -> None:
    targets = {0: rows(3, seed=1), 1: rows(3, seed=2)}
    predictions = rows(6).requires_grad_()
    loss = loss_of(predictions, targets, 2)
    longer = loss_of(7 * predictions.detach(), {c: 0.1 * t for c, t in targets.items()}, 2)
    torch.testing.assert_close(loss.detach(), longer, rtol=1e-12, atol=0)
    loss.backward()
    assert predictions.grad is not None
    torch.testing.assert_close(
        (predictions * predictions.grad).sum(dim=1), torch.zeros(6).double(), atol=1e-14, rtol=0
    )


def test_targets_get_no_gradient_and_the_loss_is_float32() -> None:
    target = rows(4, seed=1).requires_grad_()
    half = rows(8).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(half, {0: target}, 2)
    loss.backward()
    assert loss.dtype is torch.float32 and target.grad is None
    assert half.grad is not None and bool(half.grad.isfinite().all())
    exact = loss_of(half.detach().double(), {0: target.detach()}, 2)
    assert float(loss.detach()) == pytest.approx(float(exact), rel=1e-6)
