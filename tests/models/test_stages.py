from __future__ import annotations

import pytest
import torch
from torch import nn

from unlabeled.models.backbones.alexnet import AlexNet
from unlabeled.models.backbones.regnet import RegNet
from unlabeled.models.backbones.resnet import ResNet
from unlabeled.models.backbones.vgg16 import VGG16
from unlabeled.models.stages import stages


def names(backbone: nn.Module) -> list[str]:
    found = {id(module): name for name, module in backbone.named_modules()}
    return [found[id(stage)] for stage in stages(backbone)]


@pytest.mark.parametrize(("kept", "expected"), [(4, 4), (3, 3), (2, 2)])
def test_a_resnet_has_the_stages_of_the_paper(kept: int, expected: int) -> None:
    backbone = ResNet(ResNet.Config(depth=18, width=0.125, stages=kept))  # type: ignore[arg-type]
    assert names(backbone) == [f"layer{n}" for n in range(1, expected + 1)]


def test_a_regnet_has_the_blocks_of_its_trunk() -> None:
    backbone = RegNet(RegNet.Config(depth=5, w0=16, wa=30.0, group_width=8))
    blocks = [name for name, _ in backbone.trunk_output.named_children()]
    assert len(blocks) > 1
    assert names(backbone) == [f"trunk_output.{name}" for name in blocks]


def test_an_old_network_has_its_convolutions_and_its_linear_layers() -> None:
    with torch.device("meta"):
        vgg16, alexnet = VGG16(VGG16.Config()), AlexNet(AlexNet.Config())
    assert names(vgg16) == ["features", "fully_connected"]
    # Two linear layers hold 94 % of AlexNet's numbers, so a cut elsewhere would divide nothing.
    assert names(alexnet) == ["fully_connected.1", "fully_connected.4"]


def test_members_of_one_long_list_are_stages_and_lists_that_nobody_calls_are_none() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(2, 8)
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8)) for _ in range(5))

    assert names(Listed()) == [f"blocks.{n}" for n in range(5)]
    mixed = Listed()
    mixed.head = nn.Sequential(nn.Linear(8, 40), nn.Linear(40, 8))
    assert names(mixed) == ["head"]


def test_layers_without_weights_are_no_stages() -> None:
    assert stages(nn.Sequential(nn.Flatten(), nn.Sequential(nn.ReLU()))) == []
