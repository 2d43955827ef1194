"""A weight round trip through every conversion is exact: all pairs of layouts, and their files."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unlabeled.errors import CheckpointError
from unlabeled.models.backbone_files import read_weights, write_state
from unlabeled.models.key_maps import LAYOUTS, find_backbone
from unlabeled.registry import Component, get

# Basic and bottleneck blocks, groups, squeeze-excitation; as narrow as they get.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18": ("resnet", {"depth": 18, "width": 0.0625}),
    "resnet50": ("resnet", {"depth": 50, "width": 0.0625}),
    "resnext": ("resnext", {"depth": 50, "groups": 2, "width_per_group": 2}),
    "regnet": ("regnet", {"depth": 5, "w0": 16, "wa": 12.0, "wm": 2.0, "group_width": 8}),
    "alexnet": ("alexnet", {"width": 0.0625, "grid": 1, "hidden_dim": 3}),
    "vgg16": ("vgg16", {"width": 0.015625, "grid": 1, "hidden_dim": 3, "sobel": True}),
}
PROMISED = {
    *(
        "own",
        "torchvision",
        "timm",
        "detectron2",
        "swav",
        "deepcluster_v2",
        "dino",
        "moco",
        "vissl",
    ),
    "deepcluster",
}
NOT_IN = {"regnet": {"detectron2"}, "alexnet": {"detectron2"}, "vgg16": {"detectron2"}}
"""Networks that a project has not got."""


def build(architecture: str) -> nn.Module:
    name, fields = ARCHITECTURES[architecture]
    built: nn.Module = Component("backbone", name, get("backbone", name).Config(**fields)).build()
    return built


@cache
def tensors(architecture: str) -> dict[str, Tensor]:
    """Every bit pattern may come: NaN and infinities, subnormal numbers, large counters."""
    draw = torch.Generator().manual_seed(0)
    state = build(architecture).state_dict()
    return {
        name: torch.randint(0, 256, (tensor.numel() * tensor.element_size(),), generator=draw)
        .to(torch.uint8)
        .view(tensor.dtype)
        .reshape(tensor.shape)
        for name, tensor in state.items()
    }


def bits(state: dict[str, Tensor]) -> dict[str, tuple[Any, ...]]:
    return {
        name: (tensor.dtype, tuple(tensor.shape), tensor.contiguous().numpy().tobytes())
        for name, tensor in state.items()
    }


def has_names(layout: str, state: dict[str, Tensor]) -> bool:
    try:
        LAYOUTS[layout].content(state)
    except CheckpointError as error:
        assert "has no name in this layout" in str(error)
        return False
    return True


def found(content: Any, backbone: nn.Module, layout: str) -> dict[str, Tensor]:
    return find_backbone(content, backbone, origin="file", among=[layout])[1]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_pair_there_and_back(architecture: str) -> None:
    backbone, original = build(architecture), tensors(architecture)
    wanted = bits(original)
    shared = [name for name in LAYOUTS if has_names(name, original)]
    assert PROMISED - set(shared) == NOT_IN.get(architecture, set())
    for first, second in itertools.product(shared, repeat=2):
        once = found(LAYOUTS[first].content(original), backbone, first)
        twice = found(LAYOUTS[second].content(once), backbone, second)
        assert bits(twice) == wanted, (first, second)
        assert list(twice) == list(backbone.state_dict())


@pytest.mark.parametrize("layout", sorted(PROMISED))
def test_files_keep_every_bit(layout: str, tmp_path: Path) -> None:
    original = tensors("resnet18")
    content = LAYOUTS[layout].content(original)
    torch.save(content, tmp_path / "weights.pth")
    paths = [tmp_path / "weights.pth"]
    if LAYOUTS[layout].flat:
        paths.append(tmp_path / "weights.safetensors")
        write_state(paths[-1], content)
    for path in paths:
        again = found(read_weights(path), build("resnet18"), layout)
        assert bits(again) == bits(original), path
