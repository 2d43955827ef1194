"""The parts of a vision transformer, with the parameter names of DINO and timm."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

NORM_EPS = 1e-6
"""Of every layer norm (DINO); torch's default is 1e-5."""

# DINO adds it to the number of rows and columns so that rounding down cannot lose one of them. It
# moves the places that are read between, so weights trained with it need it.
GRID_MARGIN = 0.1


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V of every head, joined and projected: [B, T, D] -> [B, T, D]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self._projected(tokens)
        mixed = F.scaled_dot_product_attention(query, key, value)  # [B, heads, T, d]
        joined: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return joined

    def weights(self, tokens: Tensor, queries: int) -> Tensor:
        """softmax(Q K^T / sqrt(d)) of the first `queries` tokens, [B, heads, queries, T]."""
        query, key, _ = self._projected(tokens)
        scores: Tensor = query[:, :, :queries] @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
        return scores.softmax(dim=-1)

    def _projected(self, tokens: Tensor) -> Tensor:
        """Queries, keys and values, [3, B, heads, T, d]."""
        parts = torch.unflatten(self.qkv(tokens), 2, (3, self.heads, -1))  # [B, T, 3, heads, d]
        return parts.permute(2, 0, 3, 1, 4)


class Block(nn.Module):
    """x + attention(LN(x)), then x + MLP(LN(x)); in training an image may skip either part.

    drop_path: probability that an image of the batch skips a part; what is left is divided by
    1 - drop_path, so that the mean stays (stochastic depth, arXiv:1603.09382).
    """

    def __init__(self, width: int, heads: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        layers = [
            ("fc1", nn.Linear(width, hidden)),
            ("act", nn.GELU()),
            ("fc2", nn.Linear(hidden, width)),
        ]
        self.mlp = nn.Sequential(OrderedDict[str, nn.Module](layers))
        self.drop_path = StochasticDepth(drop_path, mode="row")

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens)))
        summed: Tensor = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return summed


class PatchEmbedding(nn.Module):
    """One token for each patch, row by row: images [B, 3, H, W] -> [B, h w, D]."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        patches: Tensor = self.proj(images)
        return patches.flatten(2).transpose(1, 2)


def interpolated(positions: Tensor, height: int, width: int, patch: int) -> Tensor:
    """Position embeddings [1, 1 + h w, D] for images of height x width pixels.

    positions: [1, 1 + s s, D] of a square grid, the CLS token's first. Bicubic, by a factor of
    (h + 0.1) / s along the rows and (w + 0.1) / s along the columns; as they are where the image is
    square and has s x s patches (DINO, interpolate_pos_encoding).
    """
    side = int((positions.shape[1] - 1) ** 0.5)
    rows, columns = height // patch, width // patch
    if rows * columns == side * side and height == width:
        return positions
    grid = torch.unflatten(positions[:, 1:], 1, (side, side)).permute(0, 3, 1, 2)  # [1, D, s, s]
    factors = ((rows + GRID_MARGIN) / side, (columns + GRID_MARGIN) / side)
    stretched = F.interpolate(grid, scale_factor=factors, mode="bicubic")  # [1, D, h, w]
    return torch.cat([positions[:, :1], stretched.flatten(2).transpose(1, 2)], dim=1)
