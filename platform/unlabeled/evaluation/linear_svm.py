"""One class against the rest by a linear support vector machine (LIBLINEAR)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from torch import Tensor

from unlabeled.config.ranges import positive
from unlabeled.distributed import comm
from unlabeled.evaluation.layers import Layer
from unlabeled.evaluation.training_views import view_problems
from unlabeled.registry import Component

T = TypeVar("T")

# VISSL svm_trainer: keeps a row of zeros finite.
NORM_FLOOR = 1e-5


class Recipe(Protocol):
    """What is read of a benchmark's config."""

    @property
    def positive_weight(self) -> float: ...
    @property
    def tolerance(self) -> float: ...
    @property
    def max_iterations(self) -> int: ...


class Settings(Recipe, Protocol):
    """What `svm` and `svm_low_shot` have in common."""

    @property
    def costs(self) -> list[float]: ...
    @property
    def layer(self) -> Layer | None: ...
    @property
    def view(self) -> Component | None: ...


def problems(settings: Settings) -> Iterator[tuple[str, str]]:
    """Ranges, and a view that is one."""
    if not settings.costs or min(settings.costs) <= 0:
        yield "costs", f"needs one or more positive numbers, got {settings.costs}"
    yield from positive(settings, "positive_weight", "tolerance", "max_iterations")
    if settings.layer is not None and settings.layer.batch_norm:
        yield "layer.batch_norm", "a linear machine has none; give false"
    yield from view_problems("view", settings.view)


def features_named(settings: Settings) -> str:
    """How the protocol of a result calls the features."""
    layer, view = settings.layer, settings.view
    of = "unit features" if layer is None else f"unit features of {layer.module}, {layer.pool}"
    return of if view is None else f"{of}, {view.name} view"


def over_ranks(numbers: Sequence[int], compute: Callable[[int], T]) -> dict[int, T]:
    """compute(number) for every number, each on one rank, known to all."""
    own = {number: compute(number) for number in numbers[comm.rank() :: comm.world_size()]}
    return {number: row for part in comm.all_gather_objects(own) for number, row in part.items()}


def unit_rows(features: Tensor) -> np.ndarray:
    """x / (||x|| + 1e-5), float64 [N, D]: what LIBLINEAR computes in."""
    rows = features.double().numpy()
    unit: np.ndarray = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + NORM_FLOOR)
    return unit


def fit_svm(
    rows: np.ndarray, positive: np.ndarray, *, cost: float, recipe: Recipe, seed: int
) -> Any:
    """scikit-learn's LinearSVC for rows float [N, D] and positive bool [N], both kinds present.

    Minimises ||(w, b)||^2 / 2 + cost sum_i c_i max(0, 1 - y_i (w x_i + b))^2 in the dual, with c_i
    = positive_weight for positives and 1 for the others. `seed` orders the coordinates of the dual.
    """
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # VISSL's 2000 iterations do not always converge at high costs; the caller looks at n_iter_.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return _machine(cost, recipe, seed).fit(rows, _sign(positive))


def best_cost(
    rows: np.ndarray,
    positive: np.ndarray,
    *,
    costs: list[float],
    folds: int,
    recipe: Recipe,
    seed: int,
) -> float:
    """The cost of the largest mean average precision over stratified folds; the first of equals.

    The folds are scikit-learn's for `cv=folds`: in the order of the rows, each class on its own.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import cross_val_score

    means = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for cost in costs:
            scores = cross_val_score(
                _machine(cost, recipe, seed),
                rows,
                _sign(positive),
                cv=folds,
                scoring="average_precision",
            )
            means.append(float(scores.mean()))
    return costs[int(np.argmax(means))]


def _sign(positive: np.ndarray) -> np.ndarray:
    return np.where(positive, 1, -1)


def _machine(cost: float, recipe: Recipe, seed: int) -> Any:
    from sklearn.svm import LinearSVC

    return LinearSVC(
        penalty="l2",
        loss="squared_hinge",
        dual=True,
        C=cost,
        class_weight={1: recipe.positive_weight, -1: 1.0},
        intercept_scaling=1.0,
        tol=recipe.tolerance,
        max_iter=recipe.max_iterations,
        random_state=seed,
    )
