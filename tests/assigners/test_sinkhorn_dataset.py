"""SeLa-v2's assignment against the linear iteration in float64, SeLa's own kernel, and its laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tests_support.ranks import run_ranks
from unlabeled.assigners.base import OfflineCodes
from unlabeled.assigners.sinkhorn_dataset import SinkhornDataset
from unlabeled.config.check import build_config
from unlabeled.distributed import comm
from unlabeled.errors import ConfigError

NEVER = {"tolerance": 0.0, "check_every": 10_000}
"""Runs all its iterations."""


def unit_rows(rows: int, dim: int = 8, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64))


def assign(features: Tensor, prototypes: Tensor, **fields: Any) -> OfflineCodes:
    assigner = SinkhornDataset(SinkhornDataset.Config(**fields))
    return assigner.assign(features, num_clusters=len(prototypes), seed=0, prototypes=prototypes)


def linear_iteration(scores: Tensor, epsilon: float, iterations: int) -> np.ndarray:
    """Q = exp(S / epsilon), columns (clusters) then rows to equal sums, element by element."""
    q: np.ndarray = np.exp(scores.numpy() / epsilon)
    for _ in range(iterations):
        for k in range(q.shape[1]):
            q[:, k] /= q.shape[1] * q[:, k].sum()
        for n in range(q.shape[0]):
            q[n] /= q.shape[0] * q[n].sum()
    return q


def codes_of_shards(shards: list[Tensor], prototypes: Tensor, fields: Any) -> OfflineCodes:
    return assign(shards[comm.rank()], prototypes, **fields)


@pytest.mark.parametrize("iterations", [1, 2, 7, 30])
def test_equals_the_linear_iteration(iterations: int) -> None:
    z, c = unit_rows(120), unit_rows(10, seed=1)
    q = linear_iteration(z @ c.t(), 0.05, iterations)
    for features, prototypes in ((z, c), (z.float(), c.float())):
        codes = assign(features, prototypes, max_iterations=iterations, **NEVER)
        assert codes.labels.tolist() == q.argmax(axis=1).tolist()
        assert codes.labels.dtype == torch.int64 and codes.centroids is None
        assert codes.iterations == iterations
        error = np.abs(10 * q.sum(axis=0) - 1).max()
        assert codes.scalars["marginal_error"] == pytest.approx(error, rel=1e-3, abs=1e-5)


def test_stops_when_the_factors_of_the_rows_have_settled() -> None:
    z, c = unit_rows(120), unit_rows(10, seed=1)

    m = (z @ c.t() / 0.05).exp().numpy()
    factors = [np.ones(len(m))]  # exp(g) after each iteration
    for _ in range(500):
        f = 1 / (len(c) * (m * factors[-1][:, None]).sum(axis=0))
        factors.append(1 / (len(m) * (m * f).sum(axis=1)))
    for every, tolerance in ((10, 0.01), (3, 0.01), (1, 0.1), (7, 1e-5)):
        codes = assign(z, c, check_every=every, tolerance=tolerance, max_iterations=500)
        changes = {
            t: np.abs(factors[t - 1] / factors[t] - 1).max() for t in range(every, 501, every)
        }
        expected = next(t for t, change in changes.items() if change <= tolerance)
        assert codes.iterations == expected < 500
        assert codes.scalars["sinkhorn_iterations"] == expected
        assert codes.scalars["sinkhorn_change"] == pytest.approx(changes[expected], rel=1e-6)
    assert assign(z, c, max_iterations=4, tolerance=0.0).iterations == 4


@pytest.mark.parametrize(
    "sizes", [(60, 60), pytest.param((30, 30, 30, 30), marks=pytest.mark.slow), (50, 70)]
)
def test_sharded_equals_one_process(sizes: tuple[int, ...]) -> None:
    z, c = unit_rows(120).float(), unit_rows(10, seed=1).float()
    fields = {"epsilon": 0.02, "tolerance": 0.001}
    alone = assign(z, c, **fields)
    by_rank = run_ranks(codes_of_shards, len(sizes), list(torch.split(z, list(sizes))), c, fields)
    assert torch.equal(torch.cat([codes.labels for codes in by_rank]), alone.labels)
    for codes in by_rank:
        assert codes.iterations == alone.iterations
        assert codes.scalars == by_rank[0].scalars
        assert codes.scalars == pytest.approx(alone.scalars, rel=1e-2, abs=1e-5)


def test_clusters_are_nearly_equal_where_nearest_prototypes_are_not() -> None:
    z = normalize(unit_rows(600) + 0.5 * unit_rows(1, seed=3))  # leans to one side
    c = unit_rows(12, seed=1)
    nearest = torch.bincount((z @ c.t()).argmax(dim=1), minlength=12)
    codes = assign(z, c, max_iterations=1000, tolerance=1e-4)
    sizes = torch.bincount(codes.labels, minlength=12)
    assert nearest.max() > 100 and nearest.min() < 25
    assert sizes.max() < 75 and sizes.min() > 25  # 600 / 12 = 50
    assert codes.scalars["marginal_error"] < 1e-3


def test_follows_permutations_of_rows_and_of_prototypes() -> None:
    z, c = unit_rows(120), unit_rows(10, seed=1)
    rows, clusters = torch.randperm(120), torch.randperm(10)
    labels = assign(z, c).labels
    assert torch.equal(assign(z[rows], c).labels, labels[rows])
    assert torch.equal(clusters[assign(z, c[clusters]).labels], labels)


@pytest.mark.slow
def test_result_does_not_depend_on_the_chunks() -> None:
    z, c = unit_rows(120), unit_rows(10, seed=1)
    whole = assign(z, c)
    for chunk_rows in (1, 7, 119):
        chunked = assign(z, c, chunk_rows=chunk_rows)
        assert torch.equal(chunked.labels, whole.labels)
        assert chunked.scalars == pytest.approx(whole.scalars, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_smallest_epsilons_stay_finite_and_right(dtype: torch.dtype) -> None:
    z, c = unit_rows(120).to(dtype), unit_rows(10, seed=1).to(dtype)
    z[:3] = c[:3]  # cosines of 1: exponents of 250 and 1000
    for epsilon in (0.004, 0.001):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            codes = assign(z, c, epsilon=epsilon, max_iterations=20, **NEVER)
        exact = assign(z.double(), c.double(), epsilon=epsilon, max_iterations=20, **NEVER)
        assert all(np.isfinite(value) for value in codes.scalars.values())
        assert torch.equal(codes.labels, exact.labels)
        assert codes.scalars == pytest.approx(exact.scalars, rel=0.01, abs=1e-3)


@pytest.mark.slow
def test_converges_to_the_labels_of_selas_own_kernel() -> None:
    tau, power = 0.1, 25
    z, c = unit_rows(64), unit_rows(50, seed=1)
    p = torch.softmax(z @ c.t() / tau, dim=1).numpy() ** power  # [N, K]
    columns = np.ones(64) / 64
    for _ in range(3000):
        rows = 1 / (50 * (p * columns[:, None]).sum(axis=0))
        columns = 1 / (64 * (p * rows).sum(axis=1))
    expected = (p * rows * columns[:, None]).argmax(axis=1)
    codes = assign(z, c, epsilon=tau / power, max_iterations=3000, **NEVER)
    assert codes.labels.tolist() == expected.tolist()
    early = assign(z, c, epsilon=tau / power, max_iterations=5, **NEVER)
    assert early.labels.tolist() != expected.tolist()


def test_impossible_values_are_named() -> None:
    wrong = {"epsilon": 0.0, "max_iterations": 0, "check_every": 0, "tolerance": -1.0}
    with pytest.raises(ConfigError) as info:
        build_config(SinkhornDataset.Config, {**wrong, "chunk_rows": 0})
    assert {line.split(":")[0] for line in info.value.problems} == {*wrong, "chunk_rows"}
