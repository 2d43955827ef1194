from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from unlabeled.evaluation.average_precision import area, eleven_points, precision_counts

GOLDEN = Path(__file__).parents[1] / "data" / "vissl_helpers.npz"


def draw(count: int, seed: int, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Scores that know a little of the labels; with `levels`, many of them equal."""
    random = np.random.default_rng(seed)
    positive = random.random(count) < 0.3
    positive[seed % count] = True
    scores = random.normal(size=count) + positive
    return (scores if levels is None else np.round(scores * levels)), positive


def naive_curve(scores: np.ndarray, positive: np.ndarray) -> list[tuple[float, float]]:
    """(recall, precision) of calling positive what scores at least t, for every t that occurs."""
    curve = []
    for threshold in sorted(set(scores.tolist()), reverse=True):
        called = scores >= threshold
        right = (called & positive).sum()
        curve.append((right / positive.sum(), right / called.sum()))
    return curve


@pytest.mark.parametrize("case", [0, 1, 2])
def test_equals_what_vissl_computes(case: int) -> None:
    golden = np.load(GOLDEN)
    scores, positive = golden[f"pr{case}_scores"], golden[f"pr{case}_targets"] > 0
    found, precision = precision_counts(scores, positive)
    np.testing.assert_allclose(precision, golden[f"pr{case}_P"], atol=1e-12)
    np.testing.assert_allclose(found / positive.sum(), golden[f"pr{case}_R"], atol=1e-12)
    assert area(scores, positive) == pytest.approx(float(golden[f"pr{case}_ap"][0]), abs=1e-12)


@pytest.mark.parametrize("levels", [None, 2], ids=["all different", "many equal"])
def test_equals_the_definitions(levels: int | None) -> None:
    for seed in range(20):
        scores, positive = draw(30, seed, levels)
        curve = naive_curve(scores, positive)
        expected, before = 0.0, 0.0
        for recall, _ in curve:
            expected += (recall - before) * max(p for r, p in curve if r >= recall)
            before = recall
        assert area(scores, positive) == pytest.approx(expected)
        points = [
            max((p for r, p in curve if round(r * positive.sum()) * 10 >= t * positive.sum()))
            for t in range(11)
        ]
        assert eleven_points(scores, positive) == pytest.approx(sum(points) / 11)


def test_by_hand() -> None:
    positive = np.array([True, False, True, False, False, True])
    scores = np.array([6.0, 5, 4, 3, 2, 1])  # precision at the positives: 1, 2/3, 1/2
    assert area(scores, positive) == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    # Recall up to 0.3 has precision 1 (4 points), up to 0.6 2/3 (3 points), then 1/2 (4 points).
    assert eleven_points(scores, positive) == pytest.approx((4 * 1 + 3 * 2 / 3 + 4 / 2) / 11)


def test_a_recall_of_three_tenths_reaches_its_point() -> None:
    """0.1 + 0.2 exceeds 3/10 in binary: three of ten positives must reach 0.3 all the same."""
    positive = np.array([True] * 3 + [False] * 90 + [True] * 7)
    scores = -np.arange(100.0)
    assert eleven_points(scores, positive) == pytest.approx((4 * 1 + 7 * 10 / 100) / 11)


def test_never_below_the_curve_without_interpolation() -> None:
    for seed in range(10):
        scores, positive = draw(40, seed, 3)
        assert area(scores, positive) >= average_precision_score(positive, scores) - 1e-12


def test_order_of_rows_and_monotone_changes_are_irrelevant() -> None:
    scores, positive = draw(50, 1, levels=2)
    order = np.random.default_rng(2).permutation(50)
    for measure in (area, eleven_points):
        assert measure(scores[order], positive[order]) == measure(scores, positive)
        assert measure(np.exp(3 * scores), positive) == measure(scores, positive)


def test_the_ends_of_the_scale() -> None:
    positive = np.arange(20) < 5
    for measure in (area, eleven_points):
        assert measure(-np.arange(20.0), positive) == 1
        assert measure(np.zeros(20), positive) == pytest.approx(0.25)
        with pytest.raises(ValueError, match="not defined"):
            measure(np.zeros(20), positive & False)


def test_what_has_no_score_is_never_found() -> None:
    """Recall is a share of all that are to be found, so the area shrinks in proportion."""
    for seed in range(5):
        scores, positive = draw(30, seed)
        count = int(positive.sum())
        assert area(scores, positive, count) == area(scores, positive)
        shrunk = area(scores, positive, 3 * count)
        assert shrunk == pytest.approx(area(scores, positive) / 3)
        curve = [(r / 3, p) for r, p in naive_curve(scores, positive)]
        points = [max((p for r, p in curve if r >= t / 10 - 1e-9), default=0) for t in range(11)]
        assert eleven_points(scores, positive, 3 * count) == pytest.approx(sum(points) / 11)
    nothing, none = np.zeros(0), np.zeros(0, dtype=bool)
    assert area(nothing, none, 2) == eleven_points(nothing, none, 2) == 0
    with pytest.raises(ValueError, match="not defined"):
        area(nothing, none, 0)
