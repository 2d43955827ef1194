"""Multiply-adds: as fvcore counts them, and as the papers named their networks by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fvcore.nn import FlopCountAnalysis
from torch import nn

from unlabeled.config.check import build_config
from unlabeled.data.types import ViewSpec
from unlabeled.planning.computation import (
    days,
    multiply_adds_by_size,
    shortest_seconds,
)
from unlabeled.planning.gpus import GPU
from unlabeled.planning.operations import Operation
from unlabeled.registry import get

CONFIGS = Path(__file__).parents[2] / "configs" / "backbone"


def backbone(name: str, **changes: Any) -> nn.Module:
    data = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) | changes
    cls = get("backbone", data.pop("name"))
    made: nn.Module = cls(build_config(cls.Config, data))
    return made


CASES: list[tuple[str, dict[str, Any], int]] = [
    ("resnet18", {"width": 0.25}, 64),
    ("resnext50_32x4d", {"groups": 4}, 32),
    ("regnet", {"depth": 6, "w0": 16, "wa": 20.0, "group_width": 8}, 48),
    ("vit_32px", {}, 32),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "changes", "side"), CASES, ids=[name for name, *_ in CASES])
def test_the_count_is_fvcore_s(name: str, changes: dict[str, Any], side: int) -> None:
    real = backbone(name, **changes).eval()
    analysis = FlopCountAnalysis(real, torch.zeros(1, 3, side, side))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    # fvcore knows no fused attention, and counts normalisation and pooling, a percent or so.
    counted = analysis.by_operator()
    expected = sum(counted[kind] for kind in ("conv", "linear", "addmm", "matmul"))
    if name.startswith("vit"):
        tokens, width, depth = (side // 4) ** 2 + 1, real.feature_dim, len(real.blocks)
        expected += depth * 2 * tokens**2 * width
    with torch.device("meta"):
        same = backbone(name, **changes)
    assert multiply_adds_by_size(same, (ViewSpec(side, "global"),)) == {side: expected}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "giga"),
    [("regnety_16gf", 16), ("regnety_32gf", 32), ("regnety_64gf", 64), ("resnet50", 4.1)],
)
def test_networks_compute_what_they_are_named_after(name: str, giga: float) -> None:
    with torch.device("meta"):
        made = backbone(name)
    found = multiply_adds_by_size(made, (ViewSpec(224, "global"),))
    assert found[224] / 1e9 == pytest.approx(giga, rel=0.03)


def test_every_operation_takes_as_long_as_its_work_or_its_bytes() -> None:
    gpu = GPU(16.0, gb_per_second=100.0, tflops={"fp32": 1.0, "fp16": 8.0, "bf16": 1.0})
    one_second, gigabyte = 10**12, 10**9
    for operations, seconds in (
        ([Operation(3 * one_second, gigabyte, torch.float32)], 3.0),
        ([Operation(3 * one_second, gigabyte, torch.bfloat16)], 3.0),
        ([Operation(4 * one_second, gigabyte, torch.float16)], 0.5),
        ([Operation(4 * one_second, 70 * gigabyte, torch.float16)], 0.7),
        ([Operation(0, 20 * gigabyte, torch.int64)], 0.2),
        ([Operation(one_second, 0, torch.float64), Operation(0, gigabyte, torch.int64)], 1.01),
    ):
        assert shortest_seconds(operations, gpu) == pytest.approx(seconds)


def test_days_are_steps_times_seconds() -> None:
    assert days(86_400, 2.0) == 2.0
