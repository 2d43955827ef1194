"""What a detector has to know of a ResNet: whether it is one that it takes, and its shape."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from unlabeled.errors import ConfigError
from unlabeled.models.backbones.torchvision_resnet import BLOCKS

IN_BLOCK = re.compile(r"layer([1-4])\.(\d+)\.(conv|bn|downsample\.)(\d)")
"""Stage, block, kind and number of a module, as torchvision names it."""


@dataclass(frozen=True)
class ResNetShape:
    """What another library has to know to build the same ResNet."""

    depth: int
    bottleneck: bool
    stem_width: int
    res2_width: int
    """Channels that leave the first stage."""
    groups: int
    width_per_group: int
    """Inner channels of a group in the first stage."""


def resnet_of(encode: object) -> ResNet:
    """The ResNet that encodes; ConfigError for a backbone that no detector takes."""
    model = encode if isinstance(encode, ResNet) else getattr(encode, "model", None)
    if not isinstance(model, ResNet):
        raise ConfigError(
            f"backbone: detection needs a ResNet or ResNeXt, got {type(encode).__name__}"
        )
    stages = [stage for stage in _stages(model) if isinstance(stage, nn.Sequential)]
    if len(stages) < 4 or model.conv1.stride != (2, 2):
        raise ConfigError(
            "backbone: detection needs all four stages and the ImageNet stem (stride 4); this one "
            f"has {len(stages)} stages and a stem of stride {model.conv1.stride[0]}; pretrain with "
            "backbone.stages=4 backbone.stem=imagenet"
        )
    return model


def shape_of(model: ResNet) -> ResNetShape:
    """Read from the layers themselves, so that any width and any number of groups is right."""
    first = next(iter(model.layer1.children()))
    last: nn.Module = list(model.layer1.children())[-1]
    bottleneck = isinstance(first, Bottleneck)
    blocks = [len(list(stage.children())) for stage in _stages(model)]
    # 34 and 50 layers have the same numbers of blocks.
    depth = next(d for d, known in BLOCKS.items() if known == blocks and (d >= 50) == bottleneck)
    inner = first.get_submodule("conv2" if bottleneck else "conv1")
    out = last.get_submodule("conv3" if bottleneck else "conv2")
    assert isinstance(inner, nn.Conv2d) and isinstance(out, nn.Conv2d)
    return ResNetShape(
        depth=depth,
        bottleneck=bottleneck,
        stem_width=model.conv1.out_channels,
        res2_width=out.out_channels,
        groups=inner.groups,
        width_per_group=inner.out_channels // inner.groups,
    )


def _stages(model: ResNet) -> list[nn.Module]:
    return [model.layer1, model.layer2, model.layer3, model.layer4]
