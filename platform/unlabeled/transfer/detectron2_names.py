"""A ResNet with torchvision's names under Detectron2's, and its shape as that describes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from unlabeled.errors import CheckpointError, ConfigError
from unlabeled.models.backbones.torchvision_resnet import BLOCKS

_IN_BLOCK = re.compile(r"layer([1-4])\.(\d+)\.(conv|bn|downsample\.)(\d)")
# Where a detector keeps its backbone: alone (C4, with the last stage in the heads) or below an FPN.
_PLACES = ("backbone.", "backbone.bottom_up.", "roi_heads.")
# Counted by torch's batch norm and not by Detectron2's frozen one; it decides nothing.
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class ResNetShape:
    """What Detectron2 has to know to build the same ResNet."""

    depth: int
    bottleneck: bool
    stem_width: int
    res2_width: int
    """Channels that leave the first stage."""
    groups: int
    width_per_group: int
    """Inner channels of a group in the first stage."""


def resnet_of(encode: object) -> ResNet:
    """The ResNet that encodes; ConfigError for a backbone that Detectron2's ResNet cannot be."""
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


def detectron2_name(name: str) -> str:
    """Detectron2's name of a tensor: `layer1.0.bn2.weight` is `res2.0.conv2.norm.weight`.

    Stages count from 2, a batch norm belongs to its convolution, and what torchvision calls
    downsample is the shortcut. CheckpointError for a name that no ResNet of torchvision has.
    """
    module, _, tensor = name.rpartition(".")
    stem = {"conv1": "stem.conv1", "bn1": "stem.conv1.norm"}
    if module in stem:
        return f"{stem[module]}.{tensor}"
    match = _IN_BLOCK.fullmatch(module)
    if match is None:
        raise CheckpointError(f"{name} is no tensor of a ResNet with torchvision's names")
    stage, block, kind, number = match.groups()
    place = {
        "conv": f"conv{number}",
        "bn": f"conv{number}.norm",
        "downsample.": "shortcut" if number == "0" else "shortcut.norm",
    }[kind]
    return f"res{int(stage) + 1}.{block}.{place}.{tensor}"


def load_backbone(detector: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy a ResNet's tensors, named as in torchvision, to their places in a detector.

    All of them or none: CheckpointError lists those that find no place of their shape, and those of
    the detector's backbone that stay unfilled.
    """
    own = {name: tensor for name, tensor in detector.state_dict().items() if _COUNTER not in name}
    found: dict[str, Tensor] = {}
    lost: list[str] = []
    for name, tensor in state.items():
        if name.endswith(_COUNTER):
            continue
        wanted = [prefix + detectron2_name(name) for prefix in _PLACES]
        place = next((each for each in wanted if each in own), None)
        if place is None or own[place].shape != tensor.shape:
            lost.append(name)
        else:
            found[place] = tensor
    empty = sorted(place for place in own if _of_resnet(place) and place not in found)
    if lost or empty:
        raise CheckpointError(
            f"the backbone does not fit the detector: no place for {lost[:8]} ({len(lost)}), "
            f"nothing for {empty[:8]} ({len(empty)})"
        )
    with torch.no_grad():
        for place, tensor in found.items():
            own[place].copy_(tensor)


def _of_resnet(place: str) -> bool:
    return any(
        re.match(rf"{re.escape(prefix)}(stem|res\d\.\d+\.(conv|shortcut))", place)
        for prefix in _PLACES
    )


def _stages(model: ResNet) -> list[nn.Module]:
    return [model.layer1, model.layer2, model.layer3, model.layer4]
