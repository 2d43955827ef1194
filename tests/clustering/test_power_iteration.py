"""Power iteration clustering against the official code, a loop over rows, and its laws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tests_support.ranks import run_ranks
from unlabeled.clustering.neighbours import nearest
from unlabeled.clustering.power_iteration import power_iteration_clusters
from unlabeled.distributed import comm

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "deepcluster_v1.npz")


def unit_rows(count: int, dim: int = 6, seed: int = 0) -> Tensor:
    return normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def naive(features: Tensor, neighbours: int, sigma: float, alpha: float) -> list[int]:
    """Dense, row by row, in float64; singletons left alone."""
    x = features.double().numpy()
    squares = ((x[:, None] - x) ** 2).sum(axis=2)
    a = np.zeros_like(squares)
    for i, row in enumerate(squares):
        for j in np.argsort(row, kind="stable")[1 : neighbours + 1]:
            a[i, j] = np.exp(-row[j] / sigma**2)
    w = a + a.T
    v = np.full(len(x), 1 / len(x))
    for _ in range(200):
        v = alpha * w @ v + (1 - alpha) / len(x)
        v = v / v.sum()
    labels = []
    for i in range(len(x)):
        while True:
            gains = w[i] * (v - v[i])
            if gains.max() <= 0:
                break
            i = int(gains.argmax())
        labels.append(i)
    return labels


def same_partition(first: list[int], second: list[int]) -> bool:
    pairs = set(zip(first, second, strict=True))
    return len(pairs) == len(set(first)) == len(set(second))


def of_shard(shards: list[Tensor], neighbours: int) -> Tensor:
    return power_iteration_clusters(shards[comm.rank()], neighbours=neighbours)


def test_equals_deepcluster() -> None:
    features = torch.from_numpy(GOLDEN["pic_preprocessed"])
    near, indices = nearest(features, features, k=6)
    assert indices.tolist() == GOLDEN["pic_graph_I"].tolist()
    np.testing.assert_allclose(2 - 2 * near.numpy(), GOLDEN["pic_graph_D"], atol=1e-5)
    labels = power_iteration_clusters(features)
    assert labels.tolist() == GOLDEN["pic_labels"].tolist()
    assert int(labels.max()) + 1 == int(GOLDEN["pic_nb_clusters"])
    before = GOLDEN["pic_labels_before_singletons"]
    company = np.bincount(before)[before] > 1
    assert same_partition(labels[company].tolist(), before[company].tolist())
    assert (~company).any()


def test_equals_the_naive_loop_where_no_row_is_alone() -> None:
    features = unit_rows(70, 3)
    expected = naive(features, 8, 0.5, 0.2)
    assert min(np.bincount(np.unique(expected, return_inverse=True)[1])) > 1  # so none joins
    found = power_iteration_clusters(features, neighbours=8, sigma=0.5, alpha=0.2)
    assert same_partition(found.tolist(), expected)


def test_groups_that_no_edge_joins_are_never_mixed() -> None:
    truth = torch.arange(5).repeat_interleave(12)
    features = normalize(torch.eye(5)[truth] + 0.1 * unit_rows(60, 5), dim=1)
    labels = power_iteration_clusters(features, neighbours=4)
    groups = set(zip(labels.tolist(), truth.tolist(), strict=True))
    assert len(groups) == int(labels.max()) + 1 < 30
    assert sorted(set(labels.tolist())) == list(range(len(groups)))


def test_two_ranks_equal_one() -> None:
    features = unit_rows(50)
    alone = power_iteration_clusters(features, neighbours=5)
    for sizes in ([25, 25], [8, 42], [50, 0]):
        shards = run_ranks(of_shard, 2, list(features.split(sizes)), 5)
        assert torch.cat(shards).equal(alone)


def test_order_of_the_rows_only_renames() -> None:
    features = unit_rows(60)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(5))
    first = power_iteration_clusters(features)
    second = power_iteration_clusters(features[order])
    assert same_partition(first[order].tolist(), second.tolist())
