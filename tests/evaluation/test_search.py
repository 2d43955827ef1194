from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

from unlabeled.evaluation.search import places, precision_at, ranks_of, trapezoid_ap

GOLDEN = Path(__file__).parents[1] / "data" / "dino_eval.npz"
CPU = torch.device("cpu")


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def test_places_are_those_of_a_stable_sort_by_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlabeled.evaluation.search.QUERY_BLOCK", 3)
    random = torch.Generator().manual_seed(0)
    database = torch.randn(30, 4, generator=random)
    database[11] = 2 * database[4]  # the same direction twice
    queries = torch.randn(7, 4, generator=random)
    found = places(queries, database, CPU)
    for query, row in zip(queries, found, strict=True):
        cosine = [float(torch.cosine_similarity(query, each, dim=0)) for each in database]
        order = sorted(range(30), key=lambda index: -round(cosine[index], 5))
        assert [int(row[index]) for index in order] == list(range(30))
        assert row[11] == row[4] + 1


def test_ranks_close_the_gaps_that_junk_leaves() -> None:
    place = rows(5, 0, 3, 1, 4, 2)  # row 1 comes first, then 3, 5, 2, 4, 0
    assert ranks_of(place, rows(0, 1, 2), rows()).tolist() == [0, 3, 5]
    assert ranks_of(place, rows(0, 1, 2), rows(3, 5)).tolist() == [0, 1, 3]
    assert ranks_of(place, rows(2), rows(0, 4)).tolist() == [3]  # junk behind it changes nothing


def test_by_hand() -> None:
    # Right, wrong, right, with one more that was never found: (1 + 1)/2, (1/2 + 2/3)/2, 0.
    assert trapezoid_ap(rows(0, 2), 3) == pytest.approx((1 + 7 / 12) / 3)
    assert trapezoid_ap(rows(0, 1, 2), 3) == 1
    assert trapezoid_ap(rows(), 2) == 0
    assert trapezoid_ap(rows(3), 1) == pytest.approx((0 + 1 / 4) / 2)
    assert [precision_at(rows(0, 2), k) for k in (1, 2, 3, 5)] == [1, 1 / 2, 2 / 3, 2 / 3]
    assert precision_at(rows(4), 10) == 1 / 5


def test_equals_the_official_average_precision_of_copies() -> None:
    golden = np.load(GOLDEN)
    for case, expected in zip(golden["copy_ap_cases"], golden["copy_ap"], strict=True):
        ranks, count = ast.literal_eval(str(case))
        assert trapezoid_ap(rows(*ranks), count) == pytest.approx(expected, abs=1e-12)


def test_is_the_area_under_the_curve_of_single_steps() -> None:
    """Walking down the list row by row, adding the trapezoid of every step in recall."""
    random = np.random.default_rng(0)
    for _ in range(20):
        right = random.random(25) < 0.3
        right[random.integers(25)] = True
        total, precision, recall, found = 0.0, 1.0, 0.0, 0
        for place, each in enumerate(right, start=1):
            found += int(each)
            after, reached = found / place, found / right.sum()
            total += (reached - recall) * (precision + after) / 2
            precision, recall = after, reached
        ranks = np.flatnonzero(right)
        assert trapezoid_ap(ranks, len(ranks)) == pytest.approx(total)
