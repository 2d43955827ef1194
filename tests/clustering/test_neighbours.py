"""Nearest rows: the same by torch, by faiss and by scikit-learn, in blocks of any size."""

from __future__ import annotations

import sys
from typing import Literal

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from unlabeled.clustering import neighbours
from unlabeled.clustering.neighbours import nearest, nearest_others
from unlabeled.errors import EnvironmentProblem
from unlabeled.evaluation.benchmarks.knn import KNN

Search = Literal["torch", "faiss"]


def features(rows: int, dim: int, seed: int) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def labels(rows: int, classes: int, seed: int) -> Tensor:
    return torch.randint(0, classes, (rows,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("search", ["torch", "faiss"])
@pytest.mark.parametrize("blocks", [(1024, 65536), (7, 13)])
def test_neighbours_are_those_of_scikit_learn(
    blocks: tuple[int, int], search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "TEST_BLOCK", blocks[0])
    monkeypatch.setattr(neighbours, "TRAIN_BLOCK", blocks[1])
    train, test = features(60, 8, 0) * torch.linspace(0.1, 9, 60).unsqueeze(1), features(33, 8, 1)
    for k in (1, 9, 60):
        oracle = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute")
        distances, expected = oracle.fit(train.double().numpy()).kneighbors(test.double().numpy())
        near, indices = nearest(train, test, k=k, search=search)
        assert near.dtype == torch.float32 and indices.dtype == torch.int64
        assert indices.tolist() == expected.tolist()
        np.testing.assert_allclose(near.numpy(), 1 - distances, atol=1e-6)


@pytest.mark.parametrize("search", ["torch", "faiss"])
def test_the_others_are_found_without_the_row_itself(search: Search) -> None:
    rows = features(40, 6, 0)
    _, indices = nearest_others(rows, k=39, search=search)
    assert [sorted([*row, own]) for own, row in enumerate(indices.tolist())] == [[*range(40)]] * 40
    assert indices.equal(nearest_others(rows, k=39)[1])


def test_of_equal_rows_faiss_finds_as_many() -> None:
    """Which of them, and in what order, is its own affair."""
    train = torch.eye(3)[labels(40, 3, 0)]
    near, indices = nearest(train, torch.eye(3), k=20, search="faiss")
    assert near.equal(nearest(train, torch.eye(3), k=20)[0])
    assert all(len(set(row)) == 20 for row in indices.tolist())
    assert (torch.eye(3)[:, None] * train[indices]).sum(dim=2).equal(near)


def test_without_faiss_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)  # as Python remembers a failed import
    with pytest.raises(EnvironmentProblem, match="pip install faiss-cpu, or give search=torch"):
        KNN(KNN.Config(search="faiss"))
    KNN(KNN.Config())


@pytest.mark.parametrize("train_block", [65536, 10, 3, 1])
def test_equal_similarities_are_ordered_by_index(
    train_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "TRAIN_BLOCK", train_block)
    axes = labels(40, 3, 0)
    train = torch.eye(3)[axes] * torch.arange(1, 41).unsqueeze(1)  # only 3 distinct directions
    near, indices = nearest(train, torch.eye(3), k=20)
    for axis in range(3):
        same = [row for row in range(40) if axes[row] == axis]
        rest = [row for row in range(40) if axes[row] != axis]
        assert indices[axis].tolist() == (same + rest)[:20]
        assert near[axis].tolist() == [1.0] * len(same) + [0.0] * (20 - len(same))


@pytest.mark.parametrize("train_block", [65536, 7, 1])
def test_a_row_is_not_its_own_neighbour_however_many_duplicates_it_has(
    train_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "TRAIN_BLOCK", train_block)
    axes = labels(30, 2, 0)
    rows = torch.eye(2)[axes]  # two heaps of equal rows, each larger than k
    near, indices = nearest_others(rows, k=20)
    for row in range(30):
        same = [other for other in range(30) if axes[other] == axes[row] and other != row]
        rest = [other for other in range(30) if axes[other] != axes[row]]
        assert indices[row].tolist() == (same + rest)[:20]
        assert near[row].tolist() == ([1.0] * len(same) + [0.0] * len(rest))[:20]
