"""RegNets' tensors as timm and VISSL name them; our names are torchvision's.

The three describe the same blocks: timm numbers them from 1, VISSL (through ClassyVision) keeps the
norm of a convolution beside it. Names of other networks are left as they are.
"""

from __future__ import annotations

import re

# Of a block, by torchvision's names: those of timm, and those of VISSL.
_PARTS = {
    "proj.0": ("downsample.conv", "proj"),
    "proj.1": ("downsample.bn", "bn"),
    "f.a.0": ("conv1.conv", "f.a.0"),
    "f.a.1": ("conv1.bn", "f.a.1"),
    "f.b.0": ("conv2.conv", "f.b.0"),
    "f.b.1": ("conv2.bn", "f.b.1"),
    "f.se.fc1": ("se.fc1", "f.se.excitation.0"),
    "f.se.fc2": ("se.fc2", "f.se.excitation.2"),
    "f.c.0": ("conv3.conv", "f.c"),
    "f.c.1": ("conv3.bn", "f.final_bn"),
}
_STEM = {"stem.0": ("stem.conv", "conv1.stem.0"), "stem.1": ("stem.bn", "conv1.stem.1")}
_TIMM, _VISSL = (
    {ours: theirs[project] for ours, theirs in (_PARTS | _STEM).items()} for project in (0, 1)
)
_OWN_BLOCK = re.compile(r"trunk_output\.block(\d)\.block\1-(\d+)\.(.+)\.(\w+)")
_TIMM_BLOCK = re.compile(r"s(\d)\.b(\d+)\.(.+)\.(\w+)")
_VISSL_BLOCK = re.compile(r"res\d\.block(\d)-(\d+)\.(.+)\.(\w+)")


def to_timm(name: str) -> str:
    """trunk_output.block1.block1-0.f.a.0.weight -> s1.b1.conv1.conv.weight, and so on."""
    block = _OWN_BLOCK.fullmatch(name)
    if block and block[3] in _PARTS:
        return f"s{block[1]}.b{int(block[2]) + 1}.{_TIMM[block[3]]}.{block[4]}"
    return _renamed(name, _TIMM)


def from_timm(name: str) -> str:
    """The inverse of `to_timm`."""
    ours = {theirs: own for own, theirs in _TIMM.items()}
    block = _TIMM_BLOCK.fullmatch(name)
    if block and block[3] in ours:
        return _own(block[1], int(block[2]) - 1, ours[block[3]], block[4])
    return _renamed(name, ours)


def to_vissl(name: str) -> str:
    """trunk_output.block1.block1-0.f.a.0.weight -> res2.block1-0.f.a.0.weight, and so on."""
    block = _OWN_BLOCK.fullmatch(name)
    if block and block[3] in _PARTS:
        stage = int(block[1])
        return f"res{stage + 1}.block{stage}-{block[2]}.{_VISSL[block[3]]}.{block[4]}"
    return _renamed(name, _VISSL)


def from_vissl(name: str) -> str:
    """The inverse of `to_vissl`."""
    ours = {theirs: own for own, theirs in _VISSL.items()}
    block = _VISSL_BLOCK.fullmatch(name)
    if block and block[3] in ours:
        return _own(block[1], int(block[2]), ours[block[3]], block[4])
    return _renamed(name, ours)


def _own(stage: str, block: int, part: str, tensor: str) -> str:
    return f"trunk_output.block{stage}.block{stage}-{block}.{part}.{tensor}"


def _renamed(name: str, names: dict[str, str]) -> str:
    """A tensor of the stem, which is no part of a block."""
    module, _, tensor = name.rpartition(".")
    return f"{names[module]}.{tensor}" if module in names and "stem" in module else name
