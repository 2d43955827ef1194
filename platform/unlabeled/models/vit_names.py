"""Torchvision's names for the tensors of a vision transformer; ours are those of DINO and timm."""

from __future__ import annotations

import re

_OUTSIDE = {  # beginnings of names: ours, torchvision's
    "cls_token": "class_token",
    "pos_embed": "encoder.pos_embedding",
    "patch_embed.": "conv_",
    "norm.": "encoder.ln.",
}
_WITHIN = {  # the same, behind the block
    "norm1.": "ln_1.",
    "attn.qkv.": "self_attention.in_proj_",
    "attn.proj.": "self_attention.out_proj.",
    "norm2.": "ln_2.",
    "mlp.fc1.": "mlp.0.",
    "mlp.fc2.": "mlp.3.",
}


def to_torchvision(name: str) -> str:
    """blocks.0.attn.qkv.bias -> encoder.layers.encoder_layer_0.self_attention.in_proj_bias.

    Names that no vision transformer has stay as they are.
    """
    block = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    if block:
        return f"encoder.layers.encoder_layer_{block[1]}.{_begun(block[2], _WITHIN)}"
    return _begun(name, _OUTSIDE)


def from_torchvision(name: str) -> str:
    """The inverse of `to_torchvision`."""
    block = re.fullmatch(r"encoder\.layers\.encoder_layer_(\d+)\.(.+)", name)
    if block:
        return f"blocks.{block[1]}.{_begun(block[2], {b: a for a, b in _WITHIN.items()})}"
    return _begun(name, {other: own for own, other in _OUTSIDE.items()})


def _begun(name: str, beginnings: dict[str, str]) -> str:
    """The name with the first beginning that it has replaced."""
    for old, new in beginnings.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
