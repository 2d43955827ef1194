from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from tests_support.ranks import run_ranks
from unlabeled.evaluation import logistic
from unlabeled.evaluation.logistic import Objective, Solution, solve

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


@pytest.mark.parametrize("c", [1e-3, 0.1, 1.0])
def test_solutions_equal_those_of_scikit_learn(c: float) -> None:
    rows, labels = digits()
    exact = LogisticRegression(C=c, tol=1e-9, max_iter=1000, solver="newton-cg")
    exact.fit(rows.double().numpy(), labels.numpy())
    theta = solved(c).theta.numpy()
    # The objective is 1/(c N)-convex: |theta - exact| <= |gradient| c N, and |gradient| <= 2.6e-6.
    near = 2.6e-6 * max(c, 0.01) * 300
    assert np.abs(theta[:, :-1] - exact.coef_).max() < near < np.abs(theta).max() / 100
    biases = exact.intercept_ - exact.intercept_.mean()  # a common constant is free
    assert np.abs(theta[:, -1] - biases).max() < 10 * near


@pytest.mark.parametrize("c", [1e-3, 1.0, 100.0])
def test_the_gradient_vanishes_by_its_closed_form(c: float) -> None:
    rows, labels = (part.double().numpy() for part in digits())
    solution = solved(c)
    theta = solution.theta.numpy()
    logits = rows @ theta[:, :-1].T + theta[:, -1]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    error = p - np.eye(10)[labels.astype(int)]  # of scikit-learn's objective, 1/2 |W|^2 + C sum CE:
    assert np.abs(theta[:, :-1] / c + error.T @ rows).max() / len(rows) < 1.1e-7
    assert np.abs(error.sum(axis=0)).max() / len(rows) < 1.1e-7
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
    far[:, -1] -= far[:, -1].mean()  # a common constant of the biases is free
    one, other = solved(0.1), solved(0.1, start=far)
    torch.testing.assert_close(one.theta, other.theta, atol=1e-3, rtol=0)
    assert float(one.theta.abs().max()) > 0.3


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
