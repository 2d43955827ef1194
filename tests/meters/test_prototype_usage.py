from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests_support.ranks import run_ranks
from unlabeled.meters.prototype_usage import PrototypeUsage
from unlabeled.methods.base import Method, MethodOutput


class Stub(Method):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(1, 1)


def output(codes: Tensor | None) -> MethodOutput:
    return MethodOutput(loss=torch.zeros(()), codes=codes)


def measure(*chunks: Tensor) -> dict[str, float]:
    meter = PrototypeUsage(PrototypeUsage.Config(), method=Stub())
    for chunk in chunks:
        meter.update(output(chunk))
    meter.compute()  # asking must not change the answer
    return meter.compute()


def codes(rows: int, prototypes: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, prototypes, generator=generator).mul(3).softmax(dim=1)


def test_counts_the_distinct_winners() -> None:
    rows = codes(60, 50)
    winners = {max(range(50), key=row.__getitem__) for row in rows.tolist()}
    assert 10 < len(winners) < 50
    assert measure(*rows.split(7)) == {"prototype_usage": pytest.approx(len(winners) / 50)}


def test_collapse_uses_one_prototype_and_one_hot_codes_of_all_use_all() -> None:
    assert measure(codes(1, 20).expand(40, 20)) == {"prototype_usage": pytest.approx(1 / 20)}
    assert measure(torch.eye(20)) == {"prototype_usage": 1.0}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    assert measure(torch.eye(8, dtype=dtype)[:6]) == {"prototype_usage": 0.75}


def test_nothing_seen_gives_nothing_and_reset_forgets() -> None:
    meter = PrototypeUsage(PrototypeUsage.Config(), method=Stub())
    meter.update(output(None))
    assert meter.compute() == {}
    meter.update(output(torch.eye(4)))
    assert meter.compute() == meter.compute() == {"prototype_usage": 1.0}
    meter.reset()
    assert meter.compute() == {}
    meter.update(output(torch.eye(4)[:1]))
    assert meter.compute() == {"prototype_usage": 0.25}


def on_ranks(shares: list[list[Tensor]]) -> dict[str, float]:
    return measure(*shares[torch.distributed.get_rank()])


def test_a_prototype_that_wins_on_any_rank_counts() -> None:
    rows = codes(40, 64)
    for halves in ([[rows[:20]], [rows[20:]]], [[rows], []]):
        one, other = run_ranks(on_ranks, 2, halves)
        assert one == other == measure(rows)
