"""Every tensor of a ResNet has its place in the transformers library."""

from __future__ import annotations

import pytest
import torch
import torchvision

from tests_support.detectors import resnet
from unlabeled.errors import CheckpointError
from unlabeled.transfer.transformers_names import fill, transformers_name


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("conv1.weight", "embedder.embedder.convolution.weight"),
        ("bn1.running_mean", "embedder.embedder.normalization.running_mean"),
        ("layer1.0.conv2.weight", "encoder.stages.0.layers.0.layer.1.convolution.weight"),
        ("layer3.5.bn3.bias", "encoder.stages.2.layers.5.layer.2.normalization.bias"),
        ("layer4.0.downsample.0.weight", "encoder.stages.3.layers.0.shortcut.convolution.weight"),
        ("layer4.0.downsample.1.bias", "encoder.stages.3.layers.0.shortcut.normalization.bias"),
    ],
)
def test_names_are_the_librarys(ours: str, theirs: str) -> None:
    assert transformers_name(ours) == theirs


@pytest.mark.parametrize("name", ["blocks.0.attn.qkv.weight", "layer5.0.conv1.weight", "weight"])
def test_a_name_of_another_network_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match=name):
        transformers_name(name)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 50, 101])
def test_the_librarys_resnet_has_these_names_and_shapes(depth: int) -> None:
    from transformers import ResNetBackbone, ResNetConfig

    with torch.device("meta"):
        ours = torchvision.models.get_model(f"resnet{depth}").state_dict()
        blocks = {18: [2, 2, 2, 2], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}[depth]
        wide = depth >= 50
        theirs = ResNetBackbone(
            ResNetConfig(
                depths=blocks,
                hidden_sizes=[256, 512, 1024, 2048] if wide else [64, 128, 256, 512],
                layer_type="bottleneck" if wide else "basic",
            )
        ).state_dict()
    named = {transformers_name(n): t.shape for n, t in ours.items() if not n.startswith("fc.")}
    assert named == {name: tensor.shape for name, tensor in theirs.items()}


def test_weights_that_do_not_fit_fill_nothing() -> None:
    backbone = resnet(18, 0.125)

    class Place(torch.nn.Module):
        """One tensor of two."""

        def __init__(self) -> None:
            super().__init__()
            self.embedder = torch.nn.Module()
            self.embedder.embedder = torch.nn.Module()
            self.embedder.embedder.convolution = torch.nn.Conv2d(3, 8, 7, bias=False)
            self.other = torch.nn.Linear(2, 2, bias=False)

    place = Place()
    before = place.embedder.embedder.convolution.weight.clone()
    with pytest.raises(CheckpointError, match=r"no place for \['embedder.*nothing for \['other"):
        fill(place, backbone.state_dict())
    assert torch.equal(before, place.embedder.embedder.convolution.weight)
