"""A ResNet with torchvision's names under those of the transformers library."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unlabeled.errors import CheckpointError
from unlabeled.transfer.resnet_shape import IN_BLOCK

# Counted by torch's batch norm and not by a frozen one; it decides nothing.
_COUNTER = "num_batches_tracked"


def transformers_name(name: str) -> str:
    """`layer2.0.bn3.weight` is `encoder.stages.1.layers.0.layer.2.normalization.weight`.

    Stages and layers count from 0, and what torchvision calls downsample is the shortcut.
    CheckpointError for a name that no ResNet of torchvision has.
    """
    module, _, tensor = name.rpartition(".")
    stem = {"conv1": "convolution", "bn1": "normalization"}
    if module in stem:
        return f"embedder.embedder.{stem[module]}.{tensor}"
    match = IN_BLOCK.fullmatch(module)
    if match is None:
        raise CheckpointError(f"{name} is no tensor of a ResNet with torchvision's names")
    stage, block, kind, number = match.groups()
    place = {
        "conv": f"layer.{int(number) - 1}.convolution",
        "bn": f"layer.{int(number) - 1}.normalization",
        "downsample.": "shortcut.convolution" if number == "0" else "shortcut.normalization",
    }[kind]
    return f"encoder.stages.{int(stage) - 1}.layers.{block}.{place}.{tensor}"


def fill(backbone: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy a ResNet's tensors, named as in torchvision, into one of the transformers library.

    All of them or none: CheckpointError lists those that find no place of their shape, and those
    that stay unfilled.
    """
    own = {name: tensor for name, tensor in backbone.state_dict().items() if _COUNTER not in name}
    given = {
        transformers_name(name): tensor for name, tensor in state.items() if _COUNTER not in name
    }
    lost = sorted(
        place for place, tensor in given.items()
        if place not in own or own[place].shape != tensor.shape
    )  # fmt: skip
    empty = sorted(own.keys() - given.keys())
    if lost or empty:
        raise CheckpointError(
            f"the backbone does not fit the detector: no place for {lost[:8]} ({len(lost)}), "
            f"nothing for {empty[:8]} ({len(empty)})"
        )
    with torch.no_grad():
        for place, tensor in given.items():
            own[place].copy_(tensor)
