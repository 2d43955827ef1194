"""Features made of a vision transformer's tokens, as DINO's protocols make them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unlabeled.errors import ConfigError
from unlabeled.models.tokens import MapBackbone, TokenBackbone

Encode = Callable[[Tensor], Tensor]
"""Normalised images [B, 3, H, W] -> features."""

# Patch tokens below this count as this: a power of 1/p has no slope and no value below 0.
GEM_FLOOR = 1e-6


def require_tokens(backbone: nn.Module, field: str) -> TokenBackbone:
    """The backbone, which must have tokens; ConfigError names the field that asks for them."""
    if not isinstance(backbone, TokenBackbone):
        raise ConfigError(
            f"{field}: the backbone ({type(backbone).__name__}) has no CLS and patch tokens; "
            "measure a vision transformer (backbone=vit_s16 and its like), or take the features "
            "that the backbone returns"
        )
    return backbone


def require_map(backbone: nn.Module, field: str) -> MapBackbone:
    """The backbone, which must have a feature map; ConfigError names the field that asks for it."""
    if not isinstance(backbone, MapBackbone):
        raise ConfigError(
            f"{field}: the backbone ({type(backbone).__name__}) does not say which map is its "
            "last; name a module of it whose output is [B, C, h, w]"
        )
    return backbone


def last_cls_tokens(backbone: TokenBackbone, blocks: int) -> Encode:
    """[CLS of block L - n + 1, ..., CLS of block L], each through the final norm: [B, n D]."""

    def encode(images: Tensor) -> Tensor:
        return torch.cat([each[:, 0] for each in backbone.tokens(images, blocks)], dim=1)

    return encode


def cls_and_mean_patch(backbone: TokenBackbone) -> Encode:
    """(c_1, m_1, ..., c_D, m_D) of the CLS token c and the mean patch token m: [B, 2 D].

    Of the last block, through the final norm; in turns, as DINO's eval_linear.py lays them.
    """

    def encode(images: Tensor) -> Tensor:
        tokens = backbone.tokens(images)[-1]  # [B, 1 + h w, D]
        return torch.stack([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=2).flatten(1)

    return encode


def cls_and_gem(backbone: TokenBackbone, power: float) -> Encode:
    """[CLS ; (mean over patches of max(t, 1e-6)^p)^(1/p)]: [B, 2 D].

    Generalised-mean pooling of the patch tokens t of the last block, through the final norm
    (Radenovic et al., arXiv:1711.02512).
    """

    def encode(images: Tensor) -> Tensor:
        tokens = backbone.tokens(images)[-1]  # [B, 1 + h w, D]
        raised = tokens[:, 1:].clamp(min=GEM_FLOOR).pow(power)
        return torch.cat([tokens[:, 0], raised.mean(dim=1).pow(1 / power)], dim=1)

    return encode


def whole_patches(backbone: nn.Module, encode: Encode) -> Encode:
    """`encode` for images of any size from one patch on.

    Where the backbone cuts images into patches, the right and lower border that fills none is left
    out, as the convolution of DINO's patch embedding leaves it out.
    """
    if not isinstance(backbone, TokenBackbone):
        return encode
    patch = backbone.patch

    def encode_whole(images: Tensor) -> Tensor:
        # An image smaller than a patch stays as it is, and the backbone says so.
        height, width = (max(patch, side // patch * patch) for side in images.shape[2:])
        return encode(images[:, :, :height, :width])

    return encode_whole
