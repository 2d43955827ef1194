"""Whitening against the official codes, scikit-learn and its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA as Oracle
from torch import Tensor

from tests_support.ranks import run_ranks
from unlabeled.clustering import pca
from unlabeled.clustering.pca import PCA, fit_pca, whitened
from unlabeled.distributed import comm
from unlabeled.errors import ConfigError

DATA = Path(__file__).parents[1] / "data"
V1 = np.load(DATA / "deepcluster_v1.npz")
DEEPER = np.load(DATA / "deepercluster_pca.npz")


def rows(count: int, dim: int, seed: int = 0) -> Tensor:
    """Correlated, with another spread in every direction and a mean."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=generator) * torch.linspace(0.2, 2, dim)
    return torch.randn(count, dim, generator=generator) @ mixing + 3


def up_to_signs(ours: Tensor, theirs: np.ndarray, atol: float) -> None:
    """Columns are equal, or one is the other's negative."""
    signs = np.sign((ours.numpy() * theirs).sum(axis=0))
    np.testing.assert_allclose(ours.numpy() * signs, theirs, atol=atol)


@pytest.mark.parametrize("name", ["", "pic_"])
def test_equals_deepcluster(name: str) -> None:
    features = torch.from_numpy(V1[f"{name}features" if name else "features"])
    found = whitened(features, 8)
    up_to_signs(found, V1[f"{name}preprocessed"], atol=1e-4)
    if not name:
        np.testing.assert_allclose(found @ found.T, V1["preprocessed_gram"], atol=1e-4)


def test_equals_deepercluster() -> None:
    features = torch.from_numpy(DEEPER["features"])
    found = fit_pca(features, 6)
    np.testing.assert_allclose(found.mean.numpy(), DEEPER["mean"], atol=1e-6)
    up_to_signs(found.matrix, DEEPER["dvt_dim6"].T, atol=1e-4)
    np.testing.assert_allclose(
        whitened(features, 6) @ whitened(features, 6).T, DEEPER["out_dim6_gram"], atol=1e-4
    )
    up_to_signs(whitened(features, 6), DEEPER["out_dim6"], atol=1e-4)


def test_directions_without_variance_are_held_down_as_in_deepercluster() -> None:
    """Which directions they are is up to rounding; how long they are scaled is not."""
    features = torch.from_numpy(DEEPER["features"])
    ours = torch.linalg.vector_norm(fit_pca(features, 12).matrix, dim=0)
    theirs = np.linalg.norm(DEEPER["dvt_dim12"], axis=1)
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-3)


def test_equals_scikit_learn() -> None:
    features = rows(200, 7)
    oracle = Oracle(5, whiten=True, svd_solver="full").fit(features.double().numpy())
    expected = oracle.transform(features.double().numpy()) * np.sqrt(200 / 199)  # divides by N - 1
    up_to_signs(fit_pca(features, 5)(features), expected, atol=1e-4)
    turned = fit_pca(features, 5, eigen_power=0.0).matrix
    up_to_signs(turned, oracle.components_.T, atol=1e-4)


def test_whitened_features_have_unit_covariance() -> None:
    features = rows(500, 6)
    found = fit_pca(features, 6)(features).double()
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(6).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.T @ found / 500, torch.eye(6).double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(whitened(features, 6).norm(dim=1), torch.ones(500))


def fit_shard(shards: list[Tensor], dim: int) -> PCA:
    return fit_pca(shards[comm.rank()], dim)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(50, 50), (3, 97), (100, 0)])
def test_two_ranks_equal_one(sizes: tuple[int, int]) -> None:
    features = rows(100, 6)
    alone = fit_pca(features, 4)
    by_rank = run_ranks(fit_shard, 2, list(features.split(list(sizes))), 4)
    for found in by_rank:
        assert found.matrix.equal(by_rank[0].matrix)
        torch.testing.assert_close(found.mean, alone.mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(found.matrix, alone.matrix, rtol=0, atol=1e-4)


def test_result_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    features = rows(100, 6)
    whole = whitened(features, 4)
    monkeypatch.setattr(pca, "ROWS", 7)
    monkeypatch.setattr(pca, "COLUMNS", 4)  # blocks of four and of two columns
    torch.testing.assert_close(whitened(features, 4), whole, rtol=0, atol=1e-4)


def test_half_features_are_only_rounded() -> None:
    features = rows(60, 5).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = whitened(features, 4)
    assert found.dtype == torch.float32 and found.equal(whitened(features.float(), 4))


def test_there_are_no_more_components_than_dimensions() -> None:
    features = rows(20, 8)
    assert whitened(features, 9).equal(whitened(features, 8))
    with pytest.raises(ConfigError, match="9 components is asked of features with 8 dimensions"):
        fit_pca(features, 9)
