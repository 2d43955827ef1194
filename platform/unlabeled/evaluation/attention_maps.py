"""What the CLS token of a vision transformer looks at, as maps and as masks."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from unlabeled.models.tokens import TokenBackbone


def cls_attention(backbone: TokenBackbone, images: Tensor) -> Tensor:
    """Attention of the CLS token to every patch in the last block, [B, heads, h, w].

    images: normalised, [B, 3, H, W]. A map sums to 1 less what the CLS token gives to itself.
    """
    to_patches = backbone.last_attention(images)[:, :, 0, 1:]  # [B, heads, h w]
    return torch.unflatten(to_patches, 2, (images.shape[2] // backbone.patch, -1))


def mass_masks(attention: Tensor, mass: float) -> Tensor:
    """bool [..., h, w]: the places of most attention, which hold `mass` of it in every map.

    From the least place upwards, places are left out as long as all that is left out is at most
    1 - mass of the map's sum (DINO, visualize_attention.py).
    """
    flat = attention.flatten(-2)
    values, order = (flat / flat.sum(dim=-1, keepdim=True)).sort(dim=-1)
    kept = values.cumsum(dim=-1) > 1 - mass
    return torch.zeros_like(kept).scatter(-1, order, kept).reshape(attention.shape)


def enlarged(maps: Tensor, patch: int) -> Tensor:
    """[..., h, w] -> [..., h patch, w patch]: every pixel of a patch gets the patch's value."""
    return maps.repeat_interleave(patch, dim=-2).repeat_interleave(patch, dim=-1)


def fitted(picture: Image.Image, side: int, patch: int, resample: Image.Resampling) -> Image.Image:
    """Resized to a shorter side of `side` pixels, then cut at the right and below to patches."""
    shorter = min(picture.size)
    width, height = (max(side, round(side * length / shorter)) for length in picture.size)
    resized = picture.resize((width, height), resample)
    return resized.crop((0, 0, width // patch * patch, height // patch * patch))
