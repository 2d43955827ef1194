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
from unlabeled.models.heads.prototypes import PrototypesHead
from unlabeled.planning.computation import (
    days,
    forward_multiply_adds,
    over_views,
    step_seconds,
)
from unlabeled.registry import get

CONFIGS = Path(__file__).parents[2] / "configs" / "backbone"


def backbone(name: str, **changes: Any) -> nn.Module:
    data = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) | changes
    cls = get("backbone", data.pop("name"))
    made: nn.Module = cls(build_config(cls.Config, data))
    return made


def head(feature_dim: int) -> PrototypesHead:
    config = PrototypesHead.Config(hidden_dim=20, output_dim=6, num_prototypes=[7, 9])
    return PrototypesHead(config, feature_dim=feature_dim, num_classes=0)


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
        parts = backbone(name, **changes), head(real.feature_dim)
    views = (ViewSpec(side, "global"),)
    found = forward_multiply_adds(*parts, real.feature_dim, views)
    of_head = real.feature_dim * 20 + 20 * 6 + 6 * (7 + 9)
    assert found == {side: expected + of_head}


@pytest.mark.parametrize(
    ("name", "giga"),
    [("regnety_16gf", 16), ("regnety_32gf", 32), ("regnety_64gf", 64), ("resnet50", 4.1)],
)
def test_networks_compute_what_they_are_named_after(name: str, giga: float) -> None:
    with torch.device("meta"):
        made = backbone(name)
        parts = made, head(made.feature_dim)
    found = forward_multiply_adds(*parts, made.feature_dim, (ViewSpec(224, "global"),))
    assert found[224] / 1e9 == pytest.approx(giga, rel=0.03)


def test_an_image_costs_what_its_crops_do() -> None:
    views = (*[ViewSpec(224, "global")] * 2, *[ViewSpec(96, "local")] * 6)
    assert over_views({224: 100, 96: 3}, views) == 218


def test_time_is_work_over_speed() -> None:
    assert step_seconds(1e12, 10.0, 0.1) == pytest.approx(1.0)
    assert days(86_400, 2.0) == 2.0
