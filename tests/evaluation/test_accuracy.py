from __future__ import annotations

import pytest
import torch

from unlabeled.evaluation import accuracy
from unlabeled.evaluation.accuracy import label_ranks, top_accuracy


def test_ranks_equal_a_sort_with_ties_to_the_lower_class() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (200, 9), generator=generator).float()  # full of ties
    labels = torch.randint(0, 9, (200,), generator=generator)
    expected = [
        sorted(range(9), key=lambda c: (-row[c], c)).index(label)
        for row, label in zip(scores.tolist(), labels.tolist(), strict=True)
    ]
    assert label_ranks(scores, labels).tolist() == expected


def test_accuracy_is_the_percentage_of_ranks_below_k(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(101, 6, generator=generator)
    labels = torch.randint(0, 6, (101,), generator=generator)
    ranks = label_ranks(scores, labels)
    monkeypatch.setattr(accuracy, "BLOCK_ROWS", 10)
    for k in range(1, 7):
        expected = 100 * sum(rank < k for rank in ranks.tolist()) / 101
        assert top_accuracy(scores, labels, k) == pytest.approx(expected)
    assert top_accuracy(scores, labels, 6) == 100


def test_nan_scores_are_never_right() -> None:
    scores = torch.full((3, 4), float("nan"))
    assert top_accuracy(scores, torch.tensor([0, 1, 3]), 4) == 0
    scores = torch.tensor([[float("nan"), 1.0, 0.0]])
    assert label_ranks(scores, torch.tensor([1])).tolist() == [1]
