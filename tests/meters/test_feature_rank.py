from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests_support.ranks import run_ranks
from unlabeled.config.check import build_config
from unlabeled.errors import ConfigError
from unlabeled.meters.feature_rank import FeatureRank
from unlabeled.methods.base import Method, MethodOutput


class Stub(Method):
    """A method of which a meter needs no more than a parameter's device."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(1, 1)


def output(embeddings: Tensor | None) -> MethodOutput:
    return MethodOutput(loss=torch.zeros(()), embeddings=embeddings)


def meter(max_rows: int = 2048) -> FeatureRank:
    return FeatureRank(FeatureRank.Config(max_rows=max_rows), method=Stub())


def measure(*chunks: Tensor, max_rows: int = 2048) -> dict[str, float]:
    measured = meter(max_rows)
    for chunk in chunks:
        measured.update(output(chunk))
    return measured.compute()


def naive(rows: Tensor) -> dict[str, float]:
    """The two definitions, written with an SVD of the rows themselves."""
    rows = rows.double()
    sigma = torch.linalg.svdvals(rows)
    share = sigma / sigma.sum() + 1e-7
    unit = rows / rows.norm(dim=1, keepdim=True)
    return {
        "feature_std": float(unit.std(dim=0, unbiased=False).mean()),
        "rank_me": math.exp(-sum(p * math.log(p) for p in share.tolist())),
    }


def gaussian(rows: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def test_equals_the_definitions_on_skewed_features() -> None:
    rows = gaussian(300, 24) * torch.logspace(0, -3, 24) + 0.1
    assert measure(*rows.split(37)) == pytest.approx(naive(rows), rel=1e-6)


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_rank_of_an_isotropic_gaussian_in_r_dimensions_is_r(rank: int) -> None:
    basis = torch.linalg.qr(gaussian(64, 64, seed=1)).Q[:rank]  # [r, 64], orthonormal
    measured = measure(gaussian(2000, rank) @ basis)
    assert measured["rank_me"] == pytest.approx(rank, rel=0.01)


def test_spread_of_an_isotropic_gaussian_is_one_over_root_d() -> None:
    assert measure(gaussian(2000, 32))["feature_std"] == pytest.approx(1 / math.sqrt(32), rel=0.01)


def test_constant_features_have_rank_one_and_no_spread() -> None:
    measured = measure(gaussian(1, 16).expand(100, 16))
    assert measured["rank_me"] == pytest.approx(1, abs=1e-4)
    assert measured["feature_std"] == pytest.approx(0, abs=1e-12)


def test_zero_features_are_finite() -> None:
    assert measure(torch.zeros(8, 4)) == {"feature_std": 0.0, "rank_me": 0.0}


def test_rank_ignores_scale_and_order_and_spread_ignores_row_norms() -> None:
    rows = gaussian(64, 8)
    plain = measure(rows)
    assert measure(1e3 * rows.flip(0)) == pytest.approx(plain, rel=1e-9)
    norms = torch.linspace(0.5, 2, 64).unsqueeze(1)
    assert measure(rows * norms)["feature_std"] == pytest.approx(plain["feature_std"], rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_finite_and_close(dtype: torch.dtype) -> None:
    rows = gaussian(256, 16) * 100
    assert measure(rows.to(dtype)) == pytest.approx(naive(rows), rel=0.01)


def test_only_the_newest_rows_count_and_are_held() -> None:
    rows = gaussian(95, 6)
    measured = meter(max_rows=20)
    for chunk in rows.split(7):
        measured.update(output(chunk))
        assert measured._held < 20 + 7
    assert measured.compute() == pytest.approx(naive(rows[-20:]), rel=1e-6)


def test_a_chunk_larger_than_the_limit_is_cut() -> None:
    rows = gaussian(100, 6)
    assert measure(rows, max_rows=30) == pytest.approx(naive(rows[-30:]), rel=1e-6)


def test_later_writes_to_the_embeddings_change_nothing() -> None:
    rows = gaussian(50, 6)
    expected = naive(rows)
    measured = meter()
    measured.update(output(rows))
    rows.zero_()
    assert measured.compute() == pytest.approx(expected, rel=1e-6)


def test_nothing_seen_gives_nothing_and_reset_forgets() -> None:
    measured = meter(max_rows=30)
    measured.update(output(None))
    assert measured.compute() == {}
    measured.update(output(gaussian(9, 3)))
    assert measured.compute() == measured.compute() != {}
    measured.reset()
    assert measured.compute() == {}
    rows = gaussian(30, 3, seed=4)
    measured.update(output(rows[:8]))
    measured.update(output(rows[8:]))
    assert measured.compute() == pytest.approx(naive(rows), rel=1e-6)


def on_ranks(shares: list[list[Tensor]], max_rows: int) -> dict[str, float]:
    return measure(*shares[torch.distributed.get_rank()], max_rows=max_rows)


def test_two_ranks_measure_what_one_does() -> None:
    steps = gaussian(10 * 8, 12).mul(torch.linspace(1, 9, 12)).split(8)
    halves = [[step[:4] for step in steps], [step[4:] for step in steps]]
    for max_rows in (2048, 24):
        alone = measure(*steps, max_rows=max_rows)
        one, other = run_ranks(on_ranks, 2, halves, max_rows)
        assert one == other == pytest.approx(alone, rel=1e-9)


def test_a_rank_without_rows_takes_part() -> None:
    rows = gaussian(40, 5)
    one, other = run_ranks(on_ranks, 2, [[], [rows]], 2048)
    assert one == other == pytest.approx(naive(rows), rel=1e-6)


def test_one_row_is_refused_by_the_config() -> None:
    with pytest.raises(ConfigError, match=r"max_rows: must be 2 or more.*got 1"):
        build_config(FeatureRank.Config, {"max_rows": 1})
