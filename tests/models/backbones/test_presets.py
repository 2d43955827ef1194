"""The networks of the papers by their names: widths, depths, groups and parameters, on no memory.

The counts of RegNets are those of the official code; every other one is added up layer by layer.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from unlabeled.config.check import build_config
from unlabeled.models.backbones.regnet import RegNet, block_params
from unlabeled.registry import get

CONFIGS = Path(__file__).parents[3] / "configs" / "backbone"
GOLDEN = np.load(Path(__file__).parents[2] / "data" / "regnet_params.npz")
REGNETS = {
    "regnety_16gf": "RG16",
    "regnety_32gf": "RG32",
    "regnety_64gf": "RG64",
    "regnety_128gf": "RG128",
    "regnety_256gf": "RG256",
    "regnety_10b": "RG10B",
}
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def preset(name: str) -> tuple[Any, nn.Module]:
    """The fields of a YAML and the network that it names, on the meta device."""
    data = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    cls = get("backbone", data.pop("name"))
    fields = build_config(cls.Config, data)
    with torch.device("meta"):
        return fields, cls(fields)


def counted(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def convolution(inputs: int, outputs: int, kernel: int, groups: int = 1) -> int:
    """A convolution without bias and the batch norm behind it."""
    return inputs // groups * outputs * kernel**2 + 2 * outputs


def regnet_parameters(fields: RegNet.Config) -> int:
    """Stem; then blocks of 1x1, grouped 3x3, squeeze and excitation, 1x1, and a shortcut."""
    stages = block_params(fields)
    total, inputs = convolution(3, 32, 3), 32
    for width, depth, group in zip(stages.widths, stages.depths, stages.group_widths, strict=True):
        for block in range(depth):
            squeezed = round(fields.se_ratio * inputs)
            total += convolution(inputs, width, 1) + convolution(width, width, 3, width // group)
            total += squeezed * (width + 1) + width * (squeezed + 1)
            total += convolution(width, width, 1)
            total += convolution(inputs, width, 1) if block == 0 else 0
            inputs = width
    return total


def resnet_parameters(depth: int, width: float = 1, groups: int = 1, per_group: int = 64) -> int:
    """Stem; then bottlenecks whose last convolution is four times as wide as their stage."""
    inputs = round(64 * width)
    total = convolution(3, inputs, 7)
    for stage, blocks in enumerate(BLOCKS[depth]):
        outputs = round(256 * width) * 2**stage
        inner = round(groups * per_group * width) * 2**stage
        for block in range(blocks):
            total += convolution(inputs, inner, 1) + convolution(inner, inner, 3, groups)
            total += convolution(inner, outputs, 1)
            total += convolution(inputs, outputs, 1) if block == 0 else 0
            inputs = outputs
    return total


@pytest.mark.slow
@pytest.mark.parametrize("name", REGNETS)
def test_regnets_are_the_official_ones(name: str) -> None:
    official = REGNETS[name]
    fields, network = preset(name)
    stages = block_params(fields)
    rows = zip(stages.widths, stages.strides, stages.depths, stages.group_widths, strict=True)
    expected = GOLDEN[f"{official}_width_stride_depth_group_bottleneck"]
    assert [list(row) for row in rows] == expected[:, :4].tolist()
    assert fields.depth == sum(stages.depths)
    assert counted(network) == GOLDEN[f"{official}_trunk_params"] == regnet_parameters(fields)
    assert network.feature_dim == stages.widths[-1]


@pytest.mark.parametrize(
    ("name", "widths", "millions"),
    [
        ("regnety_128gf", [528, 1056, 2904, 7392], 637),
        ("regnety_256gf", [746, 1492, 4103, 10444], 1272),
        ("regnety_10b", [2020, 4040, 11110, 28280], 9324),
    ],
)
def test_the_largest_have_the_published_widths(name: str, widths: list[int], millions: int) -> None:
    """The thesis (4.5.1) prints those of 128GF beside the parameters w0, wa ... of 256GF."""
    fields, network = preset(name)
    stages = block_params(fields)
    assert stages.widths == widths
    assert stages.depths == [2, 7, 17, 1]
    assert set(stages.group_widths) == {fields.group_width}
    assert round(counted(network) / 1e6) == millions
    assert all(a < b for a, b in pairwise(widths))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "millions"),
    [("resnet50", 24), ("resnet50w2", 94), ("resnet50w4", 375), ("resnet50w5", 586)],
)
def test_resnets_of_every_width(name: str, millions: int) -> None:
    """The counts of SwAV's table 5."""
    fields, network = preset(name)
    assert counted(network) == resnet_parameters(fields.depth, fields.width)
    assert round(counted(network) / 1e6) == millions


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnext50_32x4d", 25.0),
        ("resnext101_32x8d", 88),
        ("resnext101_32x16d", 193),
        ("resnext101_32x32d", 466),
        ("resnext101_32x48d", 829),
    ],
)
def test_resnexts_of_every_width(name: str, published: float) -> None:
    """Published in millions, with 1000 classes (Xie et al. 2017; Mahajan et al. 2018)."""
    fields, network = preset(name)
    expected = resnet_parameters(
        fields.depth, groups=fields.groups, per_group=fields.width_per_group
    )
    assert counted(network) == expected
    assert (expected + 2049 * 1000) / 1e6 == pytest.approx(published, rel=0.01)
