from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests_support.ranks import run_ranks
from unlabeled.meters.code_entropy import CodeEntropy
from unlabeled.methods.base import Method, MethodOutput


class Stub(Method):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(1, 1)


def output(codes: Tensor | None) -> MethodOutput:
    return MethodOutput(loss=torch.zeros(()), codes=codes)


def measure(*chunks: Tensor) -> dict[str, float]:
    meter = CodeEntropy(CodeEntropy.Config(), method=Stub())
    for chunk in chunks:
        meter.update(output(chunk))
    meter.compute()  # asking must not change the answer
    return meter.compute()


def entropies(code: float, marginal: float) -> dict[str, object]:
    return {
        "code_entropy": pytest.approx(code, abs=1e-9),
        "code_marginal_entropy": pytest.approx(marginal, abs=1e-9),
    }


def codes(rows: int, prototypes: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, prototypes, generator=generator).mul(2).softmax(dim=1)


def naive(rows: Tensor) -> dict[str, object]:
    def entropy(probabilities: list[float]) -> float:
        return -sum(p * math.log(p) for p in probabilities if p > 0) / math.log(rows.shape[1])

    table = (rows.double() / rows.double().sum(dim=1, keepdim=True)).tolist()
    mean = [sum(column) / len(table) for column in zip(*table, strict=True)]
    return entropies(sum(map(entropy, table)) / len(table), entropy(mean))


def test_equals_the_definition() -> None:
    rows = codes(50, 7)
    assert measure(*rows.split(8)) == naive(rows)


@pytest.mark.parametrize(
    ("rows", "code", "marginal"),
    [
        (torch.eye(10), 0.0, 1.0),  # hard and even: what clustering wants
        (torch.eye(10)[:1].expand(30, 10), 0.0, 0.0),  # hard, one takes all: collapse
        (torch.full((30, 10), 0.1), 1.0, 1.0),  # codes that say nothing
        (torch.eye(10)[:5], 0.0, math.log(5) / math.log(10)),  # half of the prototypes dead
        (torch.ones(3, 1), 0.0, 0.0),  # one prototype
    ],
)
def test_closed_forms(rows: Tensor, code: float, marginal: float) -> None:
    assert measure(rows) == entropies(code, marginal)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_finite_and_in_range(dtype: torch.dtype) -> None:
    measured = measure(codes(64, 3000).to(dtype))
    exact = measure(codes(64, 3000))
    assert measured == pytest.approx(exact, abs=5e-3)
    assert measure(torch.full((9, 3000), 1 / 3000, dtype=dtype)) == entropies(1.0, 1.0)


def test_nothing_seen_gives_nothing_and_reset_forgets() -> None:
    meter = CodeEntropy(CodeEntropy.Config(), method=Stub())
    meter.update(output(None))
    assert meter.compute() == {}
    meter.update(output(codes(5, 6)))
    assert meter.compute() == meter.compute() == naive(codes(5, 6))
    meter.reset()
    assert meter.compute() == {}


def on_ranks(shares: list[list[Tensor]]) -> dict[str, float]:
    return measure(*shares[torch.distributed.get_rank()])


def test_two_ranks_measure_what_one_does() -> None:
    rows = codes(40, 9)
    # Unequal shares too: the mean runs over rows, not over ranks.
    for halves in ([[rows[:20]], [rows[20:]]], [[rows[:4], rows[4:11]], [rows[11:]]], [[], [rows]]):
        one, other = run_ranks(on_ranks, 2, halves)
        assert one == other == pytest.approx(measure(rows), rel=1e-12)
