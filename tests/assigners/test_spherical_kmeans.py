"""Spherical k-means against the official code, a naive loop, and its laws."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tests_support.ranks import run_ranks
from unlabeled.assigners.base import OfflineCodes
from unlabeled.assigners.spherical_kmeans import SphericalKMeans, lloyd, random_rows
from unlabeled.clustering import chunks, means
from unlabeled.config.check import build_config
from unlabeled.distributed import comm
from unlabeled.errors import ConfigError

DATA = Path(__file__).parents[1] / "data"
GOLDEN = np.load(DATA / "dcv2_kmeans.npz")
HEADS = range(3)


def make(iterations: int = 10) -> SphericalKMeans:
    return SphericalKMeans(SphericalKMeans.Config(iterations=iterations))


def unit_rows(rows: int, dim: int = 8, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, dim, generator=generator))


def mixture(per_cluster: int = 20) -> tuple[Tensor, Tensor]:
    """Rows near the 6 signed axes of R^3, shuffled, and their cluster."""
    truth = torch.arange(6).repeat(per_cluster)
    truth = truth[torch.randperm(len(truth), generator=torch.Generator().manual_seed(1))]
    centres = torch.cat([torch.eye(3), -torch.eye(3)])
    return normalize(centres[truth] + 0.1 * unit_rows(len(truth), 3, seed=2)), truth


def naive(features: Tensor, centroids: Tensor, iterations: int) -> tuple[Tensor, list[int]]:
    """Row by row, in float64."""
    z, c = features.double().numpy(), centroids.double().numpy()
    for n in range(iterations + 1):
        labels = [int(np.argmax([row @ centre for centre in c])) for row in z]
        if n == iterations:
            break
        for k in range(len(c)):
            members = [row for row, label in zip(z, labels, strict=True) if label == k]
            if members:
                mean = np.mean(members, axis=0)
                c[k] = mean / np.linalg.norm(mean)
    return torch.from_numpy(c), labels


def trace_of_shards(shards: list[Tensor], initial: Tensor) -> tuple[list[Tensor], Tensor]:
    """Centroids at each assignment, and the labels of this rank's rows."""
    steps = list(lloyd(shards[comm.rank()], initial, 10))
    return [centroids for centroids, _ in steps], steps[-1][1]


def traces_of_shards(cases: list[tuple[list[Tensor], Tensor]]) -> list[tuple[list[Tensor], Tensor]]:
    return [trace_of_shards(*case) for case in cases]


def codes_of_shards(shards: list[Tensor], num_clusters: int, seed: int) -> OfflineCodes:
    return make().assign(shards[comm.rank()], num_clusters=num_clusters, seed=seed)


def message_for_too_many(rows: list[int], num_clusters: int) -> str:
    with pytest.raises(ConfigError) as info:
        make().assign(unit_rows(rows[comm.rank()]), num_clusters=num_clusters, seed=0)
    return str(info.value)


def placed(labels: Tensor, index: np.ndarray, size: int) -> np.ndarray:
    """Labels by data-set position, -100 where no row is."""
    table = np.full(size, -100)
    table[index] = labels.numpy()
    return table


@pytest.mark.parametrize("world_size", [1, 2])
def test_equals_the_official_code(world_size: int) -> None:
    cases = []
    for h in HEADS:
        bank = torch.from_numpy(GOLDEN["bank"][h % 2])
        initial = bank[torch.from_numpy(GOLDEN[f"w{world_size}_init_rows_h{h}"])]
        cases.append((list(bank.chunk(world_size)), initial))
    by_rank = run_ranks(traces_of_shards, world_size, cases)
    for h in HEADS:
        for results in by_rank:
            trace = torch.stack(results[h][0]).numpy()
            expected = GOLDEN[f"w{world_size}_centroid_trace_h{h}"]
            np.testing.assert_allclose(trace, expected, rtol=0, atol=1e-6)
        labels = torch.cat([results[h][1] for results in by_rank])
        ours = placed(labels, GOLDEN["index"], int(GOLDEN["set_size"]))
        np.testing.assert_array_equal(ours, GOLDEN[f"w{world_size}_assignments"][h])


@pytest.mark.parametrize("world_size", [1, 2])
def test_reproduces_the_clusters_of_the_official_training(world_size: int) -> None:
    golden = np.load(DATA / f"dcv2_train_w{world_size}.npz")
    ranks = [f"r{rank}_" for rank in range(2)] if world_size == 2 else [""]
    banks = ("init", "after_ep0")
    cases, keys = [], []
    for epoch, stage in enumerate(banks):
        for h in HEADS:
            shards = [torch.from_numpy(golden[f"{r}bank_{stage}"][h % 2]) for r in ranks]
            rows = torch.from_numpy(golden[f"{ranks[0]}init_rows_ep{epoch}_h{h}"])
            cases.append((shards, shards[0][rows]))
            keys.append((epoch, stage, h))
    by_rank = run_ranks(traces_of_shards, world_size, cases)
    for number, (epoch, stage, h) in enumerate(keys):
        prototypes = by_rank[0][number][0][-1].numpy()
        expected = golden[f"{ranks[0]}prototypes_ep{epoch}_h{h}"]
        np.testing.assert_allclose(prototypes, expected, rtol=0, atol=1e-6)
        labels = torch.cat([results[number][1] for results in by_rank])
        index = np.concatenate([golden[f"{r}index_{stage}"] for r in ranks])
        ours = placed(labels, index, int(golden["set_size"]))
        np.testing.assert_array_equal(ours, golden[f"{ranks[0]}assignments_ep{epoch}"][h])


@pytest.mark.parametrize("iterations", [1, 2, 10])
def test_equals_the_naive_loop(iterations: int) -> None:
    features = unit_rows(80)
    codes = make(iterations).assign(features, num_clusters=9, seed=0, initial=features[:9])
    centroids, labels = naive(features, features[:9], iterations)
    assert codes.centroids is not None and codes.iterations == iterations
    torch.testing.assert_close(codes.centroids.double(), centroids, rtol=0, atol=1e-6)
    assert codes.labels.dtype == torch.int64 and codes.labels.tolist() == labels


@pytest.mark.parametrize(
    "sizes", [(30, 30), pytest.param((15, 15, 15, 15), marks=pytest.mark.slow), (24, 36)]
)
def test_sharded_equals_one_process(sizes: tuple[int, ...]) -> None:
    features = unit_rows(60)
    # The first rows are drawn from rank 0 alone: give one process those very rows.
    shards = list(torch.split(features, list(sizes)))
    drawn = random_rows(shards[0], 7, seed=5)
    alone = make().assign(features, num_clusters=7, seed=0, initial=drawn)
    by_rank = run_ranks(codes_of_shards, len(sizes), shards, 7, 5)
    assert torch.equal(torch.cat([codes.labels for codes in by_rank]), alone.labels)
    for codes in by_rank:
        torch.testing.assert_close(codes.centroids, alone.centroids, rtol=0, atol=1e-6)
        assert torch.equal(codes.centroids, by_rank[0].centroids)
        assert codes.scalars == pytest.approx(alone.scalars, rel=1e-6)


def test_result_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    features = unit_rows(50)
    whole = make().assign(features, num_clusters=6, seed=3)
    monkeypatch.setattr(chunks, "CPU_ENTRIES", 6 * 7)  # 7 rows, the last chunk 1
    monkeypatch.setattr(means, "CPU_ROWS", 7)
    chunked = make().assign(features, num_clusters=6, seed=3)
    assert torch.equal(whole.labels, chunked.labels)
    torch.testing.assert_close(whole.centroids, chunked.centroids, rtol=0, atol=1e-6)


def test_cluster_without_rows_keeps_its_centroid() -> None:
    features = normalize(torch.tensor([[1.0, 0.1], [1.0, -0.1], [0.1, 1.0], [-0.1, 1.0]]))
    lonely = normalize(torch.tensor([[-1.0, -1.0]]))
    initial = torch.cat([features[:1], lonely, features[2:3]])
    codes = make().assign(features, num_clusters=3, seed=0, initial=initial)
    assert codes.centroids is not None
    torch.testing.assert_close(codes.centroids[1:2], lonely, rtol=0, atol=1e-7)
    torch.testing.assert_close(codes.centroids[[0, 2]], torch.eye(2), rtol=0, atol=1e-6)
    assert codes.labels.tolist() == [0, 0, 2, 2]
    assert codes.scalars["empty_clusters"] == 1


def test_first_of_equal_centroids_wins() -> None:
    features = unit_rows(20)
    _, labels = next(lloyd(features, features[[4, 4, 9, 9]], 1))
    assert set(labels.tolist()) == {0, 2}


@pytest.mark.parametrize("seed", range(5))
def test_objective_never_decreases(seed: int) -> None:
    features = unit_rows(200, seed=seed)
    objectives = [
        float((features * centroids[labels]).sum())
        for centroids, labels in lloyd(features, random_rows(features, 12, seed), 10)
    ]
    assert len(objectives) == 11
    assert all(b >= a - 1e-4 for a, b in pairwise(objectives))
    assert objectives[-1] > objectives[0] + 1
    codes = make().assign(features, num_clusters=12, seed=seed)
    assert codes.scalars["mean_cosine"] == pytest.approx(objectives[-1] / 200, rel=1e-5)


def test_finds_the_clusters_of_a_mixture() -> None:
    features, truth = mixture()
    one_of_each = [int((truth == k).nonzero()[0]) for k in range(6)]
    codes = make().assign(features, num_clusters=6, seed=0, initial=features[one_of_each])
    assert torch.equal(codes.labels, truth)
    best = max(
        (make().assign(features, num_clusters=6, seed=seed) for seed in range(10)),
        key=lambda found: found.scalars["mean_cosine"],
    )
    pairs = set(zip(best.labels.tolist(), truth.tolist(), strict=True))
    assert len(pairs) == 6  # a renaming of the true clusters


def test_first_centroids_are_different_rows_and_a_function_of_the_seed() -> None:
    features = unit_rows(30)
    state = torch.get_rng_state()
    draws = {seed: random_rows(features, 10, seed) for seed in range(4)}
    for seed, rows in draws.items():
        assert torch.equal(rows, random_rows(features, 10, seed))
        picked = (rows @ features.t()).argmax(dim=1)
        assert torch.equal(features[picked], rows) and len(set(picked.tolist())) == 10
    assert len({tuple(rows.flatten().tolist()) for rows in draws.values()}) == 4
    assert torch.equal(torch.get_rng_state(), state)


def test_all_rows_can_be_centroids_but_no_more() -> None:
    features = unit_rows(8)
    codes = make().assign(features, num_clusters=8, seed=0)
    assert sorted(codes.labels.tolist()) == list(range(8))
    with pytest.raises(ConfigError, match=r"its 9 first centroids.*holds 8; ask for 8 prototypes"):
        make().assign(features, num_clusters=9, seed=0)


def test_every_rank_reports_too_many_clusters() -> None:
    messages = run_ranks(message_for_too_many, 2, [8, 20], 9)
    assert len(set(messages)) == 1 and "holds 8" in messages[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_features_are_only_rounded(dtype: torch.dtype) -> None:
    features = unit_rows(60).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = make().assign(features, num_clusters=6, seed=0)
    expected = make().assign(features.float(), num_clusters=6, seed=0)
    assert codes.centroids is not None and codes.centroids.dtype == torch.float32
    torch.testing.assert_close(codes.centroids, expected.centroids, rtol=0, atol=0)
    assert torch.equal(codes.labels, expected.labels)


def test_impossible_values_are_named() -> None:
    with pytest.raises(ConfigError, match="iterations: must be 1 or more, got 0"):
        build_config(SphericalKMeans.Config, {"iterations": 0})
