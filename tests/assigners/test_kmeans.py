"""DeepCluster's codes: whitening and k-means together, on one rank and on two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests_support.ranks import run_ranks
from unlabeled.assigners.base import OfflineCodes
from unlabeled.assigners.kmeans import KMeans
from unlabeled.clustering.agreement import normalized_mutual_information
from unlabeled.config.check import build_config
from unlabeled.distributed import comm
from unlabeled.errors import ConfigError

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "deepcluster_v1.npz")


def codes(features: Tensor, clusters: int, seed: int = 4, **fields: object) -> OfflineCodes:
    assigner = KMeans(KMeans.Config(**fields))  # type: ignore[arg-type]
    return assigner.assign(features, num_clusters=clusters, seed=seed)


def of_shard(shards: list[Tensor]) -> OfflineCodes:
    return codes(shards[comm.rank()], 6, whitening_dim=8, backend="torch")


def mixture() -> tuple[Tensor, Tensor]:
    """Four groups in a plane, and twelve dimensions of louder noise in which nothing is told."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(4).repeat(50)
    corners = torch.tensor([[4.0, 4.0], [4, -4], [-4, 4], [-4, -4]])
    plane = corners[truth] + 0.3 * torch.randn(200, 2, generator=generator)
    return torch.cat([plane, 0.5 * torch.randn(200, 12, generator=generator)], dim=1), truth


@pytest.mark.slow
def test_two_ranks_equal_one() -> None:
    features = torch.from_numpy(GOLDEN["features"])
    alone = codes(features, 6, whitening_dim=8, backend="torch")
    by_rank = run_ranks(of_shard, 2, list(features.split([90, 110])))
    assert torch.cat([found.labels for found in by_rank]).equal(alone.labels)
    for found in by_rank:
        assert found.scalars == pytest.approx(alone.scalars, rel=1e-5)


def test_finds_the_groups_of_a_mixture() -> None:
    features, truth = mixture()
    found = min(
        (codes(features, 4, seed, whitening_dim=2) for seed in range(5)),
        key=lambda each: each.scalars["mean_squared_distance"],
    )
    assert normalized_mutual_information(found.labels, truth) == pytest.approx(1)
    assert found.centroids is None and found.scalars["empty_clusters"] == 0


def test_scale_and_turn_of_the_features_do_not_matter_once_whitened() -> None:
    features, _ = mixture()
    turn = torch.linalg.qr(torch.randn(14, 14, generator=torch.Generator().manual_seed(1)))[0]
    first, second = (codes(x, 10, whitening_dim=2).labels for x in (features, 5 * features @ turn))
    assert normalized_mutual_information(first, second) > 0.999
    as_they_are = codes(features, 10, whitening_dim=None)
    assert as_they_are.scalars["mean_squared_distance"] > 2  # the noise alone: 12 x 0.25


def test_impossible_values_are_named() -> None:
    for fields in ({"iterations": 0}, {"whitening_dim": 0}):
        (name,) = fields
        with pytest.raises(ConfigError, match=f"{name}: must be 1 or more"):
            build_config(KMeans.Config, fields)
