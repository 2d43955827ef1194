"""A cluster without rows takes half of another: whose, which rows, and on how many ranks."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests_support.ranks import run_ranks
from unlabeled.clustering.assignment import nearest_centroids
from unlabeled.clustering.empty_clusters import (
    Split,
    draw_splits,
    halve_clusters,
    split_centroids,
)
from unlabeled.distributed import comm

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "deepercluster_kmeans.npz")


def halved(labels: Tensor, splits: list[Split]) -> Tensor:
    labels = labels.clone()
    halve_clusters(labels, splits)
    return labels


def halved_shard(shards: list[Tensor], splits: list[Split]) -> Tensor:
    return halved(shards[comm.rank()], splits)


def test_rows_move_as_in_the_official_code() -> None:
    initial = torch.from_numpy(GOLDEN["niter0_w1_centroids_init"])
    features = torch.from_numpy(GOLDEN["niter0_w1_features"])
    splits = []
    for event in GOLDEN["niter0_w1_split_events"]:
        empty, donor = (int(part.split("]")[0]) for part in str(event).split("[")[1:])
        splits.append((empty, donor))
    labels, _ = nearest_centroids(features, initial, "torch")
    assert len(splits) == 2 and not set(labels.tolist()) & {empty for empty, _ in splits}
    halve_clusters(labels, splits)
    assert labels.tolist() == GOLDEN["niter0_w1_labels"].tolist()


def test_on_two_ranks_the_same_rows_move() -> None:
    labels = torch.tensor([2, 0, 2, 2, 0, 2, 2, 0, 2, 2])
    splits = [(1, 2), (3, 1), (4, 2)]  # the second from what the first has just filled
    alone = halved(labels, splits)
    #       2  0  2  2  0  2  2  0  2  2 -> the first 4 of 7, of these 2, of the last 3 the first 2
    assert alone.tolist() == [3, 0, 3, 1, 0, 1, 4, 0, 4, 2]
    for sizes in ([5, 5], [1, 9], [10, 0]):
        shards = list(labels.split(sizes))
        assert torch.cat(run_ranks(halved_shard, 2, shards, splits)).equal(alone)


def test_full_clusters_are_drawn_by_their_size_without_one() -> None:
    counts = torch.tensor([0, 1, 4, 8])  # chances 0, 0, 3 and 7 of 10
    drawn = Counter(draw_splits(counts, seed)[0] for seed in range(2000))
    assert set(drawn) == {(0, 2), (0, 3)}
    assert drawn[0, 2] / 2000 == pytest.approx(0.3, abs=0.04)  # four standard deviations
    assert counts.tolist() == [0, 1, 4, 8]


def test_a_split_cluster_counts_as_two_halves() -> None:
    splits = draw_splits(torch.tensor([0, 8, 0, 0, 0, 0, 0, 0]), 3)
    sizes = Counter({1: 8})
    for empty, donor in splits:
        assert sizes[donor] > 1
        sizes[empty] = sizes[donor] // 2
        sizes[donor] -= sizes[empty]
    assert sizes == Counter(range(8))


def test_what_cannot_be_filled_stays_empty() -> None:
    assert draw_splits(torch.tensor([1, 0, 2, 0, 1]), 0) == [(1, 2)]
    assert draw_splits(torch.tensor([3, 1]), 0) == []


def test_draws_leave_the_global_generator_alone_and_repeat() -> None:
    state, counts = torch.get_rng_state(), torch.tensor([5, 0, 9, 0, 0, 7])
    draws = [draw_splits(counts, seed) for seed in range(20)]
    assert torch.equal(state, torch.get_rng_state())
    assert draws == [draw_splits(counts, seed) for seed in range(20)]
    assert any(a != b for a, b in pairwise(draws))


def test_two_centroids_stand_on_either_side_of_one() -> None:
    centroids = torch.tensor([[9.0, 9, 9], [1, 2, -4], [7, 7, 7]])
    split_centroids(centroids, [(0, 1)])
    e = 1 / 1024
    assert centroids.tolist() == [
        [1 + e, 2 * (1 - e), -4 * (1 + e)],
        [1 - e, 2 * (1 + e), -4 * (1 - e)],
        [7, 7, 7],
    ]
