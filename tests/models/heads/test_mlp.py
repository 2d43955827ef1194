"""The shared MLP: its layers, its start and the unit sphere."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from unlabeled.models.heads.mlp import dimension_problems, mlp, unit_rows


@pytest.mark.parametrize(
    ("layers", "batch_norm", "expected"),
    [
        (0, "none", "Linear"),
        (0, "hidden", "Linear"),
        (0, "all", "Linear BatchNorm1d"),
        (1, "none", "Linear ReLU Linear"),
        (1, "hidden", "Linear BatchNorm1d ReLU Linear"),
        (1, "all", "Linear BatchNorm1d ReLU Linear BatchNorm1d"),
        (2, "hidden", "Linear BatchNorm1d ReLU Linear BatchNorm1d ReLU Linear"),
    ],
)
def test_the_layers_in_order(layers: int, batch_norm: str, expected: str) -> None:
    module = mlp(12, 7, layers, 3, batch_norm)  # type: ignore[arg-type]
    assert " ".join(type(layer).__name__ for layer in module) == expected
    linears = [layer for layer in module if isinstance(layer, nn.Linear)]
    widths = [12, *[7] * layers, 3]
    assert [(m.in_features, m.out_features) for m in linears] == list(pairwise(widths))
    assert module(torch.randn(4, 12)).shape == (4, 3)


def test_parameters_start_as_in_the_official_code() -> None:
    module = mlp(400, 300, 1, 100, "all")
    for layer in module:
        if isinstance(layer, nn.Linear):
            bound = 1 / math.sqrt(layer.in_features)
            for values in (layer.weight, layer.bias):
                assert values.abs().max() <= bound
                # Uniform on +-bound has standard deviation bound / sqrt(3).
                assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.2)
        if isinstance(layer, nn.BatchNorm1d):
            assert (layer.weight == 1).all() and (layer.bias == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_unit_rows_are_float32_or_better_and_survive_zero_rows(dtype: torch.dtype) -> None:
    rows = torch.randn(5, 6).to(dtype)
    rows[2] = 0
    rows[3] *= 300  # its square exceeds float16
    rows.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = unit_rows(rows)
    assert result.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = torch.tensor([1, 1, 0, 1, 1], dtype=result.dtype)
    torch.testing.assert_close(result.norm(dim=1), expected)
    result[:, 0].sum().backward()
    assert rows.grad is not None
    assert rows.grad[[0, 1, 3, 4]].isfinite().all()


def test_faults_name_the_field() -> None:
    assert {f for f, _ in dimension_problems(0, -1, 0)} == {
        "hidden_dim",
        "num_hidden_layers",
        "output_dim",
    }
    assert not list(dimension_problems(1, 0, 1))
