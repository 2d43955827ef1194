from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from tests_support.ranks import run_ranks
from unlabeled.evaluation import logistic
from unlabeled.evaluation.logistic import Coordinates, Objective, Solution, solve

CPU = torch.device("cpu")


def digits(count: int = 300) -> tuple[Tensor, Tensor]:
    """Real features: pixels in [0, 1]."""
    pixels, labels = load_digits(return_X_y=True)
    return torch.from_numpy(pixels[:count] / 16).float(), torch.from_numpy(labels[:count])


def solved(c: float, *, start: Tensor | None = None, tolerance: float = 1e-7) -> Solution:
    rows, labels = digits()
    objective = Objective(rows, labels, num_classes=10, device=CPU)
    start = objective.start() if start is None else start
    return solve(objective, c, start=start, tolerance=tolerance, max_iterations=3000)


@pytest.mark.parametrize("c", [1e-3, 0.1, 10.0])
def test_solutions_equal_those_of_scikit_learn(c: float) -> None:
    rows, labels = digits()
    exact = LogisticRegression(C=c, tol=1e-9, max_iter=1000, solver="newton-cg")
    exact.fit(rows.double().numpy(), labels.numpy())
    theta = solved(c).theta.numpy()
    near = 1e-4 * np.abs(exact.coef_).max()
    np.testing.assert_allclose(theta[:, :-1], exact.coef_, atol=near, rtol=0)
    biases = exact.intercept_ - exact.intercept_.mean()  # a common constant is free
    np.testing.assert_allclose(theta[:, -1], biases, atol=near, rtol=0)


@pytest.mark.parametrize("c", [1e-3, 1.0, 10.0])
def test_the_gradient_vanishes_by_its_closed_form(c: float) -> None:
    rows, labels = (part.double().numpy() for part in digits())
    solution = solved(c)
    theta = solution.theta.numpy()
    logits = rows @ theta[:, :-1].T + theta[:, -1]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    error = p - np.eye(10)[labels.astype(int)]  # of scikit-learn's objective, 1/2 |W|^2 + C sum CE:
    assert np.abs(theta[:, :-1] / c + error.T @ rows).max() / len(rows) < 1e-6
    assert np.abs(error.sum(axis=0)).max() / len(rows) < 1e-6
    assert solution.gradient <= 1e-7


def test_value_and_gradient_are_those_of_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "BLOCK_ROWS", 64)  # 300 rows: several blocks and a rest
    rows, labels = digits()
    objective = Objective(rows, labels, num_classes=12, device=CPU)  # two classes without images
    theta = torch.randn(12, 65, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theta.requires_grad_(True)
    scores = rows.double() @ theta[:, :-1].T + theta[:, -1]
    expected = torch.nn.functional.cross_entropy(scores, labels)
    expected = expected + theta[:, :-1].square().sum() / (2 * 0.7 * 300)
    (slope,) = torch.autograd.grad(expected, theta)
    value, gradient = objective(theta.detach(), 0.7)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient, slope)


@pytest.mark.slow
def test_the_start_does_not_matter() -> None:
    far = torch.randn(10, 65, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one, other = solved(0.1).theta, solved(0.1, start=far).theta
    other[:, -1] -= other[:, -1].mean()  # a common constant of the biases is free
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    assert float(one.abs().max()) > 0.3


def test_shifted_features_have_the_same_weights() -> None:
    rows, labels = digits()
    shifted = Objective(rows + 50, labels, num_classes=10, device=CPU)  # exact: pixels are n/16
    moved = solve(shifted, 0.1, start=shifted.start(), tolerance=1e-7, max_iterations=300)
    expected = solved(0.1).theta[:, :-1]
    torch.testing.assert_close(moved.theta[:, :-1], expected, atol=1e-4, rtol=0)


def test_coordinates_go_both_ways_and_gradients_follow() -> None:
    rows, labels = digits()
    objective = Objective(rows, labels, num_classes=10, device=CPU)
    theta = torch.randn(10, 65, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p = torch.softmax(rows.double() @ theta[:, :-1].T + theta[:, -1], dim=1)
    assert objective.curvature(theta) == pytest.approx(float((p * (1 - p)).mean()))
    coordinates = Coordinates(objective, 0.7, theta)
    point = coordinates.point(theta)
    torch.testing.assert_close(coordinates.theta(point), theta)
    along = torch.randn(10, 65, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    step = 1e-5
    ahead, behind = (
        objective(coordinates.theta(point + sign * step * along), 0.7)[0] for sign in (1, -1)
    )
    slope = (coordinates.gradient(objective(theta, 0.7)[1]) * along).sum()
    torch.testing.assert_close(slope, (ahead - behind) / (2 * step), rtol=1e-6, atol=0)


def test_a_start_without_knowledge_is_curved_by_about_one_in_every_direction() -> None:
    rows, labels = digits()
    scale = torch.logspace(-2, 2, 64)
    objective = Objective(rows * scale, labels, num_classes=10, device=CPU)
    coordinates = Coordinates(objective, 1e3, objective.start())
    start = objective.start()
    for seed in range(5):
        along = torch.randn(
            10, 65, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
        )
        along -= along.mean(dim=0)  # what all classes share changes no probability
        along /= along.norm()
        step = 1e-3
        slopes = [
            coordinates.gradient(objective(coordinates.theta(sign * step * along + start), 1e3)[1])
            for sign in (1, -1)
        ]
        curvature = float(((slopes[0] - slopes[1]) * along).sum()) / (2 * step)
        assert 0.5 < curvature < 2


def test_iterations_end_where_they_are_told_to() -> None:
    rows, labels = digits()
    objective = Objective(rows, labels, num_classes=10, device=CPU)
    short = solve(objective, 10.0, start=objective.start(), tolerance=1e-9, max_iterations=3)
    assert short.gradient > 1e-4


def on_ranks() -> Tensor:
    return solved(0.1, tolerance=1e-6).theta


@pytest.mark.slow
def test_two_ranks_solve_what_one_does_and_agree_to_the_bit() -> None:
    first, second = run_ranks(on_ranks, 2)
    assert first.equal(second)
    torch.testing.assert_close(first, on_ranks(), atol=1e-3, rtol=0)
