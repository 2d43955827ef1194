from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from unlabeled.evaluation.linear_svm import best_cost, fit_svm, unit_rows

GOLDEN = Path(__file__).parents[1] / "data" / "vissl_helpers.npz"


@dataclass(frozen=True)
class Recipe:
    positive_weight: float = 2.0
    tolerance: float = 1e-9
    max_iterations: int = 100_000


def blobs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping kinds of unit rows, a quarter positive."""
    random = np.random.default_rng(seed)
    positive = np.arange(count) % 4 == 0
    rows = random.normal(size=(count, 5)) + np.where(positive[:, None], 0.7, 0.0)
    return unit_rows(torch.from_numpy(rows)), positive


def test_unit_rows_are_those_of_vissl() -> None:
    golden = np.load(GOLDEN)
    found = unit_rows(torch.from_numpy(golden["svm_norm_in"]))
    np.testing.assert_allclose(found, golden["svm_norm_out"], atol=1e-12)
    assert np.isfinite(unit_rows(torch.zeros(2, 3))).all()


@pytest.mark.parametrize("weight", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("cost", [0.1, 3.0])
def test_the_fit_is_where_the_gradient_of_the_objective_is_zero(weight: float, cost: float) -> None:
    rows, positive = blobs(60, seed=1)
    machine = fit_svm(rows, positive, cost=cost, recipe=Recipe(weight), seed=0)
    inputs = torch.from_numpy(np.hstack([rows, np.ones((60, 1))]))
    sign = torch.from_numpy(np.where(positive, 1.0, -1.0))
    importance = torch.from_numpy(np.where(positive, weight, 1.0))
    parameters = torch.tensor([*machine.coef_[0], machine.intercept_[0]], requires_grad=True)
    slack = (1 - sign * (inputs @ parameters)).clamp(min=0)
    objective = parameters.square().sum() / 2 + cost * (importance * slack.square()).sum()
    (gradient,) = torch.autograd.grad(objective, parameters)
    assert gradient.abs().max() < 1e-5 < slack.max()


@pytest.mark.slow
def test_the_cost_is_that_of_the_best_mean_over_the_folds() -> None:
    costs = [0.003, 0.03, 0.3, 3.0, 30.0]
    chosen = []
    for seed in range(5):
        rows, positive = blobs(48, seed)
        means = []
        for cost in costs:
            folds = []
            for fold in range(3):
                held = np.zeros(48, dtype=bool)
                for kind in (positive, ~positive):  # contiguous thirds of each kind
                    held[np.array_split(np.flatnonzero(kind), 3)[fold]] = True
                machine = fit_svm(rows[~held], positive[~held], cost=cost, recipe=Recipe(), seed=0)
                scores = machine.decision_function(rows[held])
                folds.append(average_precision_score(positive[held], scores))
            means.append(np.mean(folds))
        found = best_cost(rows, positive, costs=costs, folds=3, recipe=Recipe(), seed=0)
        assert found == costs[int(np.argmax(means))]
        chosen.append(found)
    assert len(set(chosen)) > 1


def test_of_equal_costs_the_first_and_no_warning_of_unfinished_fits() -> None:
    rows, positive = blobs(48, 0)
    rows[positive] += 5  # separated: every cost finds all
    hasty = Recipe(max_iterations=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert best_cost(rows, positive, costs=[9.0, 1.0], folds=3, recipe=hasty, seed=0) == 9.0
        assert fit_svm(rows, positive, cost=1.0, recipe=hasty, seed=0).n_iter_ == 1


def test_a_fit_is_a_function_of_its_arguments() -> None:
    rows, positive = blobs(60, seed=1)
    recipe = Recipe(tolerance=0.1)  # stops early, where the order of coordinates shows
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    first = fit_svm(rows, positive, cost=10, recipe=recipe, seed=3).coef_
    again = fit_svm(rows, positive, cost=10, recipe=recipe, seed=3).coef_
    other = fit_svm(rows, positive, cost=10, recipe=recipe, seed=4).coef_
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert (np.random.get_state()[1] == before).all()
