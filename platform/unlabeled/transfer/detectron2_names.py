"""A ResNet with torchvision's names under Detectron2's."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unlabeled.errors import CheckpointError
from unlabeled.transfer.resnet_shape import IN_BLOCK

# Where a detector keeps its backbone: alone (C4, with the last stage in the heads) or below an FPN.
_PLACES = ("backbone.", "backbone.bottom_up.", "roi_heads.")
# Counted by torch's batch norm and not by Detectron2's frozen one; it decides nothing.
_COUNTER = "num_batches_tracked"


def detectron2_name(name: str) -> str:
    """Detectron2's name of a tensor: `layer1.0.bn2.weight` is `res2.0.conv2.norm.weight`.

    Stages count from 2, a batch norm belongs to its convolution, and what torchvision calls
    downsample is the shortcut. CheckpointError for a name that no ResNet of torchvision has.
    """
    module, _, tensor = name.rpartition(".")
    stem = {"conv1": "stem.conv1", "bn1": "stem.conv1.norm"}
    if module in stem:
        return f"{stem[module]}.{tensor}"
    match = IN_BLOCK.fullmatch(module)
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
