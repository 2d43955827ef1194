"""k-means against the official codes and faiss, a loop in float64, and its laws."""

from __future__ import annotations

import importlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests_support.ranks import run_ranks
from unlabeled.clustering.faiss_library import Backend
from unlabeled.clustering.kmeans import Clusters, kmeans, random_rows
from unlabeled.distributed import comm
from unlabeled.errors import ConfigError

DATA = Path(__file__).parents[1] / "data"
V1 = np.load(DATA / "deepcluster_v1.npz")
DEEPER = np.load(DATA / "deepercluster_kmeans.npz")
BACKENDS = ["torch", "faiss"]


def rows(count: int, dim: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def naive(features: Tensor, centroids: Tensor, iterations: int) -> tuple[np.ndarray, list[int]]:
    """Row by row, in float64; no cluster may run empty."""
    x, c = features.double().numpy(), centroids.double().numpy()
    for n in range(iterations + 1):
        labels = [int(np.argmin([np.sum((row - centre) ** 2) for centre in c])) for row in x]
        if n < iterations:
            c = np.stack([x[np.array(labels) == k].mean(axis=0) for k in range(len(c))])
    return c, labels


def of_shard(shards: list[Tensor], clusters: int, initial: Tensor | None = None) -> Clusters:
    return kmeans(
        shards[comm.rank()], clusters, iterations=10, seed=3, initial=initial, backend="torch"
    )


def official(prefix: str, ranks: int) -> list[Clusters]:
    features = torch.from_numpy(DEEPER[f"{prefix}_features"])
    initial = torch.from_numpy(DEEPER[f"{prefix}_centroids_init"])
    shards = list(features.chunk(ranks))
    return run_ranks(of_official_shard, ranks, shards, initial)


def of_official_shard(shards: list[Tensor], initial: Tensor) -> Clusters:
    return kmeans(
        shards[comm.rank()],
        int(DEEPER["set_K"]),
        iterations=int(DEEPER["set_niter"]),
        seed=0,
        initial=initial,
        backend="torch",
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_deepcluster(backend: Backend) -> None:
    features = torch.from_numpy(V1["preprocessed"])
    found = kmeans(
        features,
        int(V1["kmeans_K"]),
        iterations=int(V1["kmeans_niter"]),
        seed=0,
        initial=features[torch.from_numpy(V1["kmeans_init_rows"])],
        backend=backend,
    )
    assert found.labels.tolist() == V1["kmeans_labels"].tolist()
    assert found.labels.tolist() == V1["arrange_clustering"].tolist()
    np.testing.assert_allclose(found.centroids.numpy(), V1["kmeans_centroids"], atol=1e-5)
    # faiss goes on to compare once more after nothing changed, or it stops where we do.
    expected = V1["kmeans_obj"]
    np.testing.assert_allclose(found.objectives, expected[: len(found.objectives)], rtol=1e-5)
    assert found.objectives[-1] == pytest.approx(float(V1["kmeans_final_loss"]), rel=1e-5)


@pytest.mark.parametrize("ranks", [1, 2])
def test_equals_deepercluster_where_no_cluster_runs_empty(ranks: int) -> None:
    prefix = f"nosplit_w{ranks}"
    by_rank = official(prefix, ranks)
    labels = torch.cat([found.labels for found in by_rank])
    assert labels.tolist() == DEEPER[f"{prefix}_labels"].tolist()
    for found in by_rank:
        expected = DEEPER[f"{prefix}_centroids"]
        np.testing.assert_allclose(found.centroids.numpy(), expected, atol=1e-5)
        assert found.splits == found.empty == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_equals_the_naive_loop(iterations: int, backend: Backend) -> None:
    features = rows(80)
    found = kmeans(
        features, 7, iterations=iterations, seed=0, initial=features[:7], backend=backend
    )
    centroids, labels = naive(features, features[:7], iterations)
    np.testing.assert_allclose(found.centroids.numpy(), centroids, atol=1e-6)
    assert found.labels.tolist() == labels and len(found.objectives) == iterations + 1
    squares = ((features.double().numpy() - centroids[labels]) ** 2).sum()
    assert found.objectives[-1] == pytest.approx(squares, rel=1e-5)


@pytest.mark.parametrize("sizes", [(40, 40), (10, 70), (80, 0)])
def test_two_ranks_equal_one(sizes: tuple[int, int]) -> None:
    features = rows(80)
    alone = kmeans(features, 9, iterations=10, seed=3, backend="torch")
    by_rank = run_ranks(of_shard, 2, list(features.split(list(sizes))), 9)
    assert torch.cat([found.labels for found in by_rank]).equal(alone.labels)
    for found in by_rank:
        assert found.centroids.equal(by_rank[0].centroids)
        torch.testing.assert_close(found.centroids, alone.centroids, rtol=0, atol=1e-6)
        assert found.objectives == pytest.approx(alone.objectives, rel=1e-6)


def test_two_ranks_split_the_same_clusters() -> None:
    """Every centroid but one starts far away, so that all but one run empty at once."""
    features = rows(60)
    initial = 100 + rows(8, seed=1)
    initial[0] = 0
    alone = kmeans(features, 8, iterations=10, seed=3, initial=initial, backend="torch")
    assert alone.splits >= 7 and alone.empty == 0
    by_rank = run_ranks(of_shard, 2, list(features.split(30)), 8, initial)
    assert torch.cat([found.labels for found in by_rank]).equal(alone.labels)
    assert [found.splits for found in by_rank] == [alone.splits] * 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(3))
def test_objective_never_rises_without_splits(seed: int, backend: Backend) -> None:
    found = kmeans(rows(300, seed=seed), 10, iterations=30, seed=seed, backend=backend)
    assert found.splits == 0
    assert all(b <= a * (1 + 1e-6) for a, b in pairwise(found.objectives))
    assert found.objectives[-1] < 0.9 * found.objectives[0]


def test_it_ends_where_nothing_changes() -> None:
    features = torch.cat([rows(20) + 20, rows(20, seed=1) - 20])
    found = kmeans(features, 2, iterations=500, seed=0, initial=features[[0, 20]])
    assert len(found.objectives) == 2  # the second assignment repeats the first
    again = kmeans(features, 2, iterations=1, seed=0, initial=found.centroids)
    assert again.labels.equal(found.labels) and again.centroids.equal(found.centroids)


def test_objective_is_that_of_faiss() -> None:
    """Of the same first centroids, with as many clusters for the rows that some run empty."""
    faiss = importlib.import_module("faiss")
    ratios = []
    for seed in range(3):
        features = rows(1500, 8, seed)
        initial = random_rows(features, 150, seed)
        theirs = faiss.Clustering(8, 150)
        theirs.niter, theirs.max_points_per_centroid = 10, 10**7
        theirs.min_points_per_centroid = 1
        index = faiss.IndexFlatL2(8)
        faiss.copy_array_to_vector(initial.numpy().ravel(), theirs.centroids)
        theirs.train(features.numpy(), index)
        objective = float(index.search(features.numpy(), 1)[0].sum())
        ours = kmeans(features, 150, iterations=10, seed=seed, initial=initial, backend="torch")
        ratios.append(ours.objectives[-1] / objective)
    assert ratios == pytest.approx([1] * 3, abs=0.005)


def test_clusters_are_filled_where_asked() -> None:
    """With fewer different rows than clusters, no assignment reaches them all."""
    features = rows(5).repeat(8, 1)
    for fill in (False, True):
        found = kmeans(features, 12, iterations=5, seed=0, fill_empty=fill, backend="torch")
        counts = torch.bincount(found.labels, minlength=12)
        assert found.empty == int((counts == 0).sum())
        assert (found.empty == 0) is fill
        apart = (features - found.centroids[found.labels]).square().sum()
        assert float(apart) == pytest.approx(found.objectives[-1], abs=1e-4)


def test_first_centroids_are_different_rows_and_do_not_depend_on_who_holds_them() -> None:
    features, state = rows(30), torch.get_rng_state()
    draws = {seed: random_rows(features, 10, seed) for seed in range(4)}
    for seed, drawn in draws.items():
        places = (drawn[:, None] == features).all(dim=2).nonzero()[:, 1].tolist()
        assert len(places) == len(set(places)) == 10
        for sharded in run_ranks(rows_of_shard, 2, list(features.split([11, 19])), seed):
            assert sharded.equal(drawn)
    assert len({tuple(drawn.flatten().tolist()) for drawn in draws.values()}) == 4
    assert torch.equal(torch.get_rng_state(), state)


def rows_of_shard(shards: list[Tensor], seed: int) -> Tensor:
    return random_rows(shards[comm.rank()], 10, seed)


def test_all_rows_can_be_centroids_but_no_more() -> None:
    features = rows(8)
    found = kmeans(features, 8, iterations=2, seed=0)
    assert sorted(found.labels.tolist()) == list(range(8))
    with pytest.raises(ConfigError, match="9 clusters of only 8 features; ask for 8 or fewer"):
        kmeans(features, 9, iterations=2, seed=0)


def test_half_features_under_autocast_are_only_rounded() -> None:
    features = rows(60).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = kmeans(features, 6, iterations=5, seed=0, backend="torch")
    expected = kmeans(features.float(), 6, iterations=5, seed=0, backend="torch")
    assert found.centroids.equal(expected.centroids) and found.labels.equal(expected.labels)
