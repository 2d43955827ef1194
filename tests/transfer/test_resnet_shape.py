"""Which backbones a detector takes, and what it has to know of them."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from unlabeled.errors import ConfigError
from unlabeled.models.backbones.resnet import ResNet
from unlabeled.models.backbones.resnext import ResNeXt
from unlabeled.transfer.resnet_shape import resnet_of, shape_of


@pytest.mark.slow
def test_shapes_are_read_from_the_layers() -> None:
    for depth, bottleneck in ((18, False), (34, False), (50, True), (101, True)):
        shape = shape_of(ResNet(ResNet.Config(depth=depth, width=0.125)))
        assert (shape.depth, shape.bottleneck, shape.stem_width) == (depth, bottleneck, 8)
        assert (shape.res2_width, shape.width_per_group) == (32 if bottleneck else 8, 8)
    grouped = shape_of(ResNeXt(ResNeXt.Config(depth=50, groups=32, width_per_group=4)))
    assert (grouped.groups, grouped.width_per_group, grouped.res2_width) == (32, 4, 256)


def test_a_resnet_of_torchvision_is_found_inside_its_wrapper() -> None:
    """As `weights=torchvision:resnet50` gives it."""
    wrapper = nn.Module()
    with torch.device("meta"):
        wrapper.model = torchvision.models.resnet50()
    assert resnet_of(wrapper) is wrapper.model
    shape = shape_of(wrapper.model)
    assert (shape.depth, shape.stem_width, shape.res2_width) == (50, 64, 256)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (nn.Flatten(), "needs a ResNet or ResNeXt, got Flatten"),
        (ResNet(ResNet.Config(depth=18, width=0.125, stages=1)), "has 1 stages"),
        (ResNet(ResNet.Config(depth=18, width=0.125, stem="small")), "stem of stride 1"),
    ],
)
def test_backbones_that_no_detector_takes_are_named(backbone: nn.Module, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resnet_of(backbone)
