"""The nearest centroid: the same by torch, by faiss and by a loop in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from unlabeled.clustering import chunks
from unlabeled.clustering.assignment import largest_products, nearest_centroids
from unlabeled.clustering.faiss_library import Backend, uses_faiss


def rows(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("backend", ["torch", "faiss", "auto"])
@pytest.mark.parametrize("entries", [2**22, 7 * 9])  # of one chunk, and of seven rows a chunk
def test_nearest_is_that_of_all_distances(
    backend: Backend, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CPU_ENTRIES", entries)
    features, centroids = rows(50, 5, 0), rows(9, 5, 1)
    labels, distances = nearest_centroids(features, centroids, backend)
    table = (features.double()[:, None] - centroids.double()).square().sum(dim=2)
    assert labels.dtype == torch.int64
    assert labels.equal(table.argmin(dim=1))
    np.testing.assert_allclose(distances.numpy(), table.amin(dim=1).numpy(), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_features_are_only_rounded(dtype: torch.dtype) -> None:
    features, centroids = rows(30, 4, 0).to(dtype), rows(6, 4, 1)
    for half, full in zip(
        nearest_centroids(features, centroids, "torch"),
        nearest_centroids(features.float(), centroids, "torch"),
        strict=True,
    ):
        assert half.equal(full)


def test_the_first_of_equal_centroids_wins_and_no_distance_is_negative() -> None:
    centroids = (1000 * rows(4, 3, 0))[[2, 0, 0, 1, 2]]
    labels, distances = nearest_centroids(centroids, centroids, "torch")
    assert labels.tolist() == [0, 1, 1, 3, 0]
    assert float(distances.min()) >= 0


def test_without_a_bias_it_is_the_largest_cosine() -> None:
    features, centroids = rows(20, 4, 0), rows(5, 4, 1)
    values, labels = largest_products(features, centroids)
    table = features.double() @ centroids.double().T
    assert labels.equal(table.argmax(dim=1))
    np.testing.assert_allclose(values.numpy(), table.amax(dim=1).numpy(), atol=1e-5)


def test_faiss_computes_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    assert uses_faiss("auto", torch.zeros(1)) and uses_faiss("faiss", torch.zeros(1))
    assert not uses_faiss("torch", torch.zeros(1))
    assert not uses_faiss("auto", torch.zeros(1, device="meta"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not uses_faiss("auto", torch.zeros(1))
