"""DeepCluster's other codes: numbered by size, and what a classifier has no output for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests_support.ranks import run_ranks
from unlabeled.assigners.base import OfflineCodes
from unlabeled.assigners.power_iteration import PowerIteration
from unlabeled.config.check import build_config
from unlabeled.distributed import comm
from unlabeled.errors import ConfigError

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "deepcluster_v1.npz")
FEATURES = torch.from_numpy(GOLDEN["pic_features"])


def codes(features: Tensor, clusters: int) -> OfflineCodes:
    config = PowerIteration.Config(whitening_dim=8)
    return PowerIteration(config).assign(features, num_clusters=clusters, seed=0)


def of_shard(shards: list[Tensor], clusters: int) -> OfflineCodes:
    return codes(shards[comm.rank()], clusters)


def test_clusters_are_the_official_ones_by_size() -> None:
    found, expected = codes(FEATURES, 60), GOLDEN["pic_labels"]
    assert len(set(zip(found.labels.tolist(), expected.tolist(), strict=True))) == 11
    sizes = torch.bincount(found.labels).tolist()
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == 11
    assert found.scalars == {"clusters_found": 11, "unlabelled_rows": 0}


def test_rows_of_the_smallest_clusters_have_no_label_where_outputs_are_few() -> None:
    everything, found = codes(FEATURES, 60).labels, codes(FEATURES, 4)
    assert found.labels.tolist() == [n if n < 4 else -100 for n in everything.tolist()]
    assert found.scalars["unlabelled_rows"] == float((everything >= 4).sum()) > 0


def test_two_ranks_equal_one() -> None:
    alone = codes(FEATURES, 5)
    by_rank = run_ranks(of_shard, 2, list(FEATURES.split([20, 40])), 5)
    assert torch.cat([found.labels for found in by_rank]).equal(alone.labels)
    assert all(found.scalars == alone.scalars for found in by_rank)


def test_impossible_values_are_named() -> None:
    for name, value in (("neighbours", 0), ("sigma", 0.0), ("alpha", 1.0), ("iterations", 0)):
        with pytest.raises(ConfigError, match=f"{name}: must"):
            build_config(PowerIteration.Config, {name: value})
