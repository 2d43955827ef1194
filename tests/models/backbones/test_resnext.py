from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from unlabeled.config.check import build_config
from unlabeled.errors import ConfigError
from unlabeled.models.backbones.resnext import ResNeXt


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("resnext50_32x4d", {"depth": 50, "groups": 32, "width_per_group": 4}),
        ("resnext101_32x8d", {"depth": 101, "groups": 32, "width_per_group": 8}),
        ("resnext101_64x4d", {"depth": 101, "groups": 64, "width_per_group": 4}),
    ],
)
def test_names_and_shapes_are_torchvision_s_but_for_fc(name: str, fields: dict[str, Any]) -> None:
    with torch.device("meta"):
        ours = ResNeXt(build_config(ResNeXt.Config, fields))
        theirs = getattr(torchvision.models, name)()
    expected = {n: t.shape for n, t in theirs.state_dict().items() if not n.startswith("fc.")}
    assert {n: t.shape for n, t in ours.state_dict().items()} == expected
    assert ours.feature_dim == 2048


@pytest.mark.slow
def test_features_are_torchvision_s_with_the_same_weights() -> None:
    ours, theirs = ResNeXt(ResNeXt.Config()).eval(), torchvision.models.resnext50_32x4d().eval()
    theirs.fc = nn.Identity()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 48, 40)
    assert torch.equal(ours(images), theirs(images))


def test_impossible_groups_are_config_errors() -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(ResNeXt.Config, {"groups": 0, "width_per_group": 0})
    assert [p.split(":")[0] for p in caught.value.problems] == ["groups", "width_per_group"]
