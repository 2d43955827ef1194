"""Online Sinkhorn codes against the official code, the linear iteration in float64, its laws."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests_support.ranks import run_ranks
from unlabeled.assigners.sinkhorn import Sinkhorn
from unlabeled.config.check import build_config
from unlabeled.distributed import comm
from unlabeled.errors import ConfigError

DATA = Path(__file__).parents[1] / "data"
GOLDEN = np.load(DATA / "swav_sinkhorn.npz")
GOLDEN64 = np.load(DATA / "swav_sinkhorn64.npz")
RUNS = ("swav_train_noqueue", "swav_train_queue")
CASES = [(eps, its) for eps in (0.05, 0.03) for its in (1, 3, 10)]


def make(epsilon: float = 0.05, iterations: int = 3, hard: bool = False) -> Sinkhorn:
    return Sinkhorn(Sinkhorn.Config(epsilon=epsilon, iterations=iterations, hard=hard))


def unit_scores(rows: int, clusters: int, dim: int = 8, seed: int = 0) -> Tensor:
    """Cosines [rows, clusters] in float64."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    c = torch.randn(clusters, dim, generator=generator, dtype=torch.float64)
    z, c = torch.nn.functional.normalize(z), torch.nn.functional.normalize(c)
    return z @ c.t()


def linear_iteration(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """The paper's iteration on the matrix itself, element by element, in float64."""
    q = np.exp(scores.double().numpy() / epsilon)
    rows, clusters = q.shape
    q /= q.sum()
    for _ in range(iterations):
        for k in range(clusters):
            q[:, k] /= clusters * q[:, k].sum()
        for n in range(rows):
            q[n] /= rows * q[n].sum()
    return torch.from_numpy(rows * q)


def logarithmic_iteration(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """The same with logarithms of both potentials, in float64."""
    m = scores.double() / epsilon
    rows, clusters = m.shape
    g = m.new_zeros(rows, 1)
    for _ in range(iterations):
        f = -math.log(clusters) - torch.logsumexp(m + g, dim=0, keepdim=True)
        g = -math.log(rows) - torch.logsumexp(m + f, dim=1, keepdim=True)
    return rows * (m + f + g).exp()


def codes_of_shards(cases: list[tuple[float, int, list[Tensor]]]) -> list[Tensor]:
    """Each case's codes of this rank's shard."""
    return [make(eps, its)(shards[comm.rank()]) for eps, its, shards in cases]


def collectives_of_a_call(
    scores: Tensor, epsilon: float, iterations: int
) -> list[tuple[str, tuple[int, ...]]]:
    """What a call sends: the name and shape of every collective, in order."""
    sent = []

    def recorded(name: str, original: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def collective(tensor: Tensor) -> Tensor:
            sent.append((name, tuple(tensor.shape)))
            return original(tensor)

        return collective

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in vars(comm) if name.startswith(("all_", "broadcast"))]:
            patch.setattr(comm, name, recorded(name, getattr(comm, name)))
        make(epsilon, iterations)(scores)
    return sent


def official_input(with_queue: int, rank: int, world_size: int) -> Tensor:
    parts = (["queue_scores"] if with_queue else []) + ["scores"]
    shards = [torch.from_numpy(GOLDEN[part]).chunk(world_size)[rank] for part in parts]
    return torch.cat(shards)


@pytest.mark.parametrize("with_queue", [0, 1])
@pytest.mark.parametrize(("epsilon", "iterations"), CASES)
def test_equals_the_official_code_on_one_rank(
    with_queue: int, epsilon: float, iterations: int
) -> None:
    codes = make(epsilon, iterations)(official_input(with_queue, 0, 1))
    expected = GOLDEN[f"w1_r0_q{with_queue}_eps{epsilon}_it{iterations}"]
    np.testing.assert_allclose(codes.numpy(), expected, rtol=0, atol=2e-6)


@pytest.mark.slow
def test_equals_the_official_code_on_two_ranks() -> None:
    cases, keys = [], []
    for with_queue in (0, 1):
        for epsilon, iterations in CASES:
            shards = [official_input(with_queue, rank, 2) for rank in range(2)]
            cases.append((epsilon, iterations, shards))
            keys.append(f"q{with_queue}_eps{epsilon}_it{iterations}")
    hot = torch.from_numpy(GOLDEN["scores_hot"])
    cases.append((0.01, 3, list(hot.chunk(2))))
    by_rank = run_ranks(codes_of_shards, 2, cases)
    for rank, codes in enumerate(by_rank):
        for key, ours in zip(keys, codes, strict=False):
            expected = GOLDEN[f"w2_r{rank}_{key}"]
            np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=2e-6, err_msg=key)
    # The official float32 result of this case is NaN everywhere; its float64 one is right.
    assert np.isnan(GOLDEN["w2_r0_overflow_eps0.01_it3"]).all()
    ours = torch.cat([codes[-1] for codes in by_rank])
    np.testing.assert_allclose(ours.numpy(), GOLDEN64["f64_eps0.01_it3"], rtol=0, atol=2e-6)


@pytest.mark.parametrize(("epsilon", "iterations"), [*CASES, (0.01, 1), (0.01, 3), (0.01, 10)])
def test_equals_the_official_code_in_float64(epsilon: float, iterations: int) -> None:
    scores = torch.from_numpy(GOLDEN64["scores_hot" if epsilon == 0.01 else "scores"])
    expected = GOLDEN64[f"f64_eps{epsilon}_it{iterations}"]
    make_codes = make(epsilon, iterations)
    np.testing.assert_allclose(make_codes(scores.double()).numpy(), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(make_codes(scores).numpy(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("run", RUNS)
def test_reproduces_the_codes_of_the_official_training(run: str) -> None:
    one = np.load(DATA / f"{run}_w1.npz")
    two = np.load(DATA / f"{run}_w2.npz")
    names = [f"it{t}_a{crop}" for t in range(8) for crop in range(2)]
    for name in names:
        codes = make()(torch.from_numpy(one[f"{name}_skin"]))
        np.testing.assert_allclose(codes.numpy(), one[f"{name}_q"], rtol=0, atol=2e-6)
    cases = [
        (0.05, 3, [torch.from_numpy(two[f"r{rank}_{name}_skin"]) for rank in range(2)])
        for name in names
    ]
    for rank, by_case in enumerate(run_ranks(codes_of_shards, 2, cases)):
        for name, codes in zip(names, by_case, strict=True):
            np.testing.assert_allclose(codes.numpy(), two[f"r{rank}_{name}_q"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("world_size", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_equals_the_linear_iteration_whatever_the_sharding(world_size: int) -> None:
    batch, queue = unit_scores(16, 7), unit_scores(24, 7, seed=1)
    cases = []
    for iterations in (1, 3, 10):
        cases.append((0.05, iterations, list(batch.chunk(world_size))))
        pairs = zip(queue.chunk(world_size), batch.chunk(world_size), strict=True)
        cases.append((0.05, iterations, [torch.cat(pair) for pair in pairs]))
    by_rank = run_ranks(codes_of_shards, world_size, cases)
    for number, (epsilon, iterations, shards) in enumerate(cases):
        expected = linear_iteration(torch.cat(shards), epsilon, iterations)
        ours = torch.cat([codes[number] for codes in by_rank])
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("world_size", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_stays_right_for_a_cosine_of_one_and_a_tiny_epsilon(world_size: int) -> None:
    scores = unit_scores(16, 7)
    scores[3, 2] = scores[11, 5] = 1.0
    scores[:, 6] = -1.0  # a prototype opposite to everything
    cases = [(0.001, its, list(scores.float().chunk(world_size))) for its in (1, 3, 10)]
    by_rank = run_ranks(codes_of_shards, world_size, cases)
    for number, (epsilon, iterations, _) in enumerate(cases):
        ours = torch.cat([codes[number] for codes in by_rank])
        assert ours.isfinite().all()
        # float32 holds exponents of up to 1000 to 3e-5, and so entries to that share of themselves
        expected = logarithmic_iteration(scores.float(), epsilon, iterations).float()
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


def test_sends_one_vector_of_prototypes_per_iteration_and_no_features() -> None:
    scores = unit_scores(6, 5).float()
    scores[0] = 1.0
    scores[:, 3] = -1.0  # the widest range that cosines have
    for epsilon, iterations in ((0.05, 1), (0.05, 3), (0.03, 3), (0.015, 10)):
        for sent in run_ranks(collectives_of_a_call, 2, scores, epsilon, iterations):
            assert sent == [("all_reduce_sum", (5,))] * iterations


@pytest.mark.parametrize("offset", [-200.0, 0.0, 200.0])
def test_sends_the_maxima_only_where_sums_of_exponentials_would_be_wrong(offset: float) -> None:
    """One prototype's sums overflow or vanish; two ranks choose as one and stay right."""
    scores = unit_scores(16, 7).float()
    scores[:, 4] += 0.05 * offset
    (codes,) = zip(*run_ranks(codes_of_shards, 2, [(0.05, 3, list(scores.chunk(2)))]), strict=True)
    expected = logarithmic_iteration(scores, 0.05, 3).float()
    # A logit of 200 is held to 1e-5, and so is its exponential to that share of itself.
    torch.testing.assert_close(torch.cat(codes), expected, rtol=1e-4, atol=1e-6)
    sums, maxima = ("all_reduce_sum", (7,)), ("all_reduce_max", (7,))
    for sent in run_ranks(collectives_of_a_call, 2, scores, 0.05, 3):
        assert sent == ([sums] * 3 if offset == 0 else [sums, maxima, sums, sums, sums])


@pytest.mark.parametrize("epsilon", [0.05, 0.001])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rows_sum_to_one_in_float32(epsilon: float, dtype: torch.dtype) -> None:
    scores = unit_scores(32, 9).to(dtype)
    for given in (scores, 1000 * scores):
        codes = make(epsilon)(given.requires_grad_())
        assert codes.dtype == torch.float32 and not codes.requires_grad
        assert (codes >= 0).all()
        torch.testing.assert_close(codes.sum(dim=1), torch.ones(32), rtol=0, atol=1e-5)


def test_half_scores_are_only_rounded() -> None:
    scores = unit_scores(32, 9).half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = make()(scores)
    torch.testing.assert_close(codes, make()(scores.float()), rtol=0, atol=0)


def test_constant_added_to_all_scores_changes_nothing() -> None:
    scores = unit_scores(32, 9)
    for constant in (-3.0, 1.0, 40.0):
        shifted = make()(scores + constant)
        torch.testing.assert_close(shifted, make()(scores), rtol=0, atol=1e-11)


def test_follows_permutations_of_rows_and_of_prototypes() -> None:
    scores = unit_scores(32, 9)
    rows, prototypes = torch.randperm(32), torch.randperm(9)
    codes = make()(scores)
    torch.testing.assert_close(make()(scores[rows]), codes[rows], rtol=0, atol=1e-13)
    torch.testing.assert_close(
        make()(scores[:, prototypes]), codes[:, prototypes], rtol=0, atol=1e-13
    )


def test_prototypes_share_the_batch_ever_more_evenly() -> None:
    scores = unit_scores(60, 6)
    errors = []
    for iterations in (1, 3, 10, 300):
        shares = make(iterations=iterations)(scores).sum(dim=0)
        errors.append(float((shares - 10).abs().max()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.5 and errors[-1] < 1e-6


def test_hard_codes_are_the_largest_entries_of_the_soft_ones() -> None:
    scores = unit_scores(32, 9).float()
    soft, hard = make()(scores), make(hard=True)(scores)
    assert hard.dtype == torch.float32
    assert (hard.sum(dim=1) == 1).all() and set(hard.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(hard.argmax(dim=1), soft.argmax(dim=1))


def test_impossible_values_are_named() -> None:
    with pytest.raises(ConfigError) as info:
        build_config(Sinkhorn.Config, {"epsilon": 0.0, "iterations": 0})
    assert len(info.value.problems) == 2
    assert "epsilon: must be positive, got 0.0" in info.value.problems[0]
    assert "iterations: must be 1 or more, got 0" in info.value.problems[1]
