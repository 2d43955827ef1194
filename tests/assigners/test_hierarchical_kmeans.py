"""DeeperCluster's codes: clusters within clusters, on one rank and on two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests_support.ranks import run_ranks
from unlabeled.assigners.base import OfflineCodes
from unlabeled.assigners.hierarchical_kmeans import HierarchicalKMeans
from unlabeled.clustering.kmeans import kmeans
from unlabeled.clustering.pca import whitened
from unlabeled.config.check import build_config
from unlabeled.distributed import comm
from unlabeled.errors import ConfigError

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "deepercluster_pca.npz")
FEATURES = torch.from_numpy(GOLDEN["features"])  # [80, 12]


def codes(features: Tensor, clusters: int, groups: int = 4) -> OfflineCodes:
    config = HierarchicalKMeans.Config(super_clusters=groups, whitening_dim=6, backend="torch")
    return HierarchicalKMeans(config).assign(features, num_clusters=clusters, seed=2)


def of_shard(shards: list[Tensor], clusters: int) -> OfflineCodes:
    return codes(shards[comm.rank()], clusters)


def test_upper_level_is_kmeans_of_whitened_features() -> None:
    found = codes(FEATURES, 12)
    upper = kmeans(whitened(FEATURES, 6), 4, iterations=10, seed=2, backend="torch")
    assert upper.empty == 0 and (found.labels // 3).equal(upper.labels)


def test_lower_level_is_kmeans_within() -> None:
    """No row would be nearer to the mean of another cluster of the same super-cluster."""
    found, rows = codes(FEATURES, 12).labels, whitened(FEATURES, 6)
    for number in range(4):
        own = (found // 3 == number).nonzero().flatten()
        lower = kmeans(rows[own], 3, iterations=10, seed=3 + number, backend="torch")
        assert (found[own] % 3).equal(lower.labels)
        assert len(lower.objectives) < 11  # it ended where nothing changed
        means = torch.stack([rows[own][lower.labels == k].mean(dim=0) for k in range(3)])
        assert torch.cdist(rows[own], means).argmin(dim=1).equal(lower.labels)


@pytest.mark.slow
def test_two_ranks_equal_one() -> None:
    alone = codes(FEATURES, 12)
    for sizes in ([40, 40], [9, 71]):
        by_rank = run_ranks(of_shard, 2, list(FEATURES.split(sizes)), 12)
        assert torch.cat([found.labels for found in by_rank]).equal(alone.labels)
        for found in by_rank:
            assert found.scalars == pytest.approx(alone.scalars, rel=1e-5)


def test_every_cluster_has_rows_where_there_are_enough() -> None:
    counts = torch.bincount(codes(FEATURES, 40).labels, minlength=40)
    assert codes(FEATURES, 40).scalars["empty_clusters"] == float((counts == 0).sum())
    sizes = counts.view(4, 10)
    for own in sizes:
        assert int((own > 0).sum()) == min(10, int(own.sum()))


def test_a_rank_without_rows_of_a_super_cluster_takes_part() -> None:
    """Two groups far apart, each on one rank."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(40, 6, generator=generator)
    rows[:20, 0] += 50
    shards = run_ranks(of_two_groups, 2, [rows[:20], rows[20:]])
    supers = [set((found.labels // 3).tolist()) for found in shards]
    assert sorted(supers, key=min) == [{0}, {1}]


def of_two_groups(shards: list[Tensor]) -> OfflineCodes:
    config = HierarchicalKMeans.Config(super_clusters=2, whitening_dim=None, backend="torch")
    return HierarchicalKMeans(config).assign(shards[comm.rank()], num_clusters=6, seed=0)


def test_impossible_values_are_named() -> None:
    with pytest.raises(ConfigError, match="10 clusters do not divide into 4 super-clusters"):
        codes(FEATURES, 10)
    for name in ("super_clusters", "iterations", "whitening_dim"):
        with pytest.raises(ConfigError, match=f"{name}: must be 1 or more"):
            build_config(HierarchicalKMeans.Config, {name: 0})
