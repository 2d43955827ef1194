from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from unlabeled.config.check import build_config
from unlabeled.errors import ConfigError
from unlabeled.models.backbones.regnet import RegNet, block_params

DATA = Path(__file__).resolve().parents[2] / "data"
TINY = RegNet.Config(depth=5, w0=16, wa=12.0, wm=2.0, group_width=8)


@pytest.mark.parametrize("model", ["RG16", "RG32", "RG64", "RG128", "RG256", "RG10B"])
def test_stages_and_sizes_are_those_of_the_official_models(model: str) -> None:
    golden = np.load(DATA / "regnet_params.npz")
    depth, w0, wa, wm, group_width = golden[f"{model}_settings_depth_w0_wa_wm_group"].tolist()
    config = RegNet.Config(depth=int(depth), w0=int(w0), wa=wa, wm=wm, group_width=int(group_width))
    stages = block_params(config)
    rows = zip(
        stages.widths,
        stages.strides,
        stages.depths,
        stages.group_widths,
        stages.bottleneck_multipliers,
        strict=True,
    )
    expected = golden[f"{model}_width_stride_depth_group_bottleneck"].tolist()
    assert [list(row) for row in rows] == expected
    with torch.device("meta"):
        built = RegNet(config)
    assert sum(p.numel() for p in built.parameters()) == golden[f"{model}_trunk_params"]
    assert built.feature_dim == expected[-1][0]


def test_features_are_torchvision_s_with_the_same_weights() -> None:
    config = RegNet.Config(depth=16, w0=48, wa=27.89, wm=2.09, group_width=8)
    ours, theirs = RegNet(config).eval(), torchvision.models.regnet_y_400mf().eval()
    theirs.fc = nn.Identity()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 48)
    features = ours(images)
    assert torch.equal(features, theirs(images))
    assert features.shape == (2, ours.feature_dim)


def test_se_ratio_zero_is_a_regnetx() -> None:
    names = RegNet(RegNet.Config(depth=4, w0=16, wa=8.0, wm=2.0, group_width=8, se_ratio=0.0))
    assert not [n for n, _ in names.named_parameters() if ".se." in n]
    assert [n for n, _ in RegNet(TINY).named_parameters() if ".se." in n]


def test_impossible_fields_are_config_errors() -> None:
    bad = {"depth": 0, "w0": 20, "wa": -1.0, "wm": 1.0, "group_width": 0, "se_ratio": 2.0}
    with pytest.raises(ConfigError) as caught:
        build_config(RegNet.Config, bad)
    assert {p.split(":")[0] for p in caught.value.problems} == set(bad)
