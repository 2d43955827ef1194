"""Normalised mutual information against scikit-learn and in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score

from unlabeled.clustering.agreement import normalized_mutual_information as nmi


@pytest.mark.parametrize("seed", range(4))
def test_equals_scikit_learn(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(0, 7, (200,), generator=generator)
    noise = torch.rand(200, generator=generator) < 0.2 * seed
    second = torch.where(noise, torch.randint(0, 5, (200,), generator=generator), first // 2)
    expected = normalized_mutual_info_score(first.numpy(), second.numpy())
    assert nmi(first, second) == pytest.approx(expected, abs=1e-12)
    assert nmi(second, first) == pytest.approx(expected, abs=1e-12)


def test_other_names_for_the_same_clusters_agree_wholly() -> None:
    labels = torch.tensor([0, 0, 1, 2, 2, 2])
    assert nmi(labels, torch.tensor([5, 5, 0, 9, 9, 9])) == pytest.approx(1)
    assert nmi(torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64)) == 1


def test_independent_clusters_have_nothing_in_common() -> None:
    assert nmi(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])) == pytest.approx(
        0, abs=1e-12
    )


def test_halves_of_halves_in_closed_form() -> None:
    """H(A) = log 2, H(B) = log 4, I = log 2: 2 / 3."""
    value = nmi(torch.tensor([0, 0, 1, 1]), torch.arange(4))
    assert value == pytest.approx(2 * math.log(2) / (math.log(2) + math.log(4)))


def test_rows_that_either_left_out_do_not_count() -> None:
    first = torch.tensor([0, 0, 1, 1, -100, 2])
    second = torch.tensor([3, 3, 4, 4, 0, -100])
    assert nmi(first, second) == pytest.approx(1)
    assert nmi(first, torch.full((6,), -100)) == 1
