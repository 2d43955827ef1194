"""What a backbone may offer beside its features: a feature map, tokens and attention.

A backbone offers something by having the methods; evaluation asks with `isinstance`. Features
themselves, `backbone(images) -> [B, feature_dim]`, are what every backbone has.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class MapBackbone(Protocol):
    """A backbone whose last layer keeps places apart: ResNets, RegNets and ViTs."""

    def feature_map(self, images: Tensor) -> Tensor:
        """The last map [B, D, h, w] of normalised images [B, 3, H, W], before any pooling.

        A ViT's are the patch tokens of its last block after the final norm, row by row.
        """
        ...


@runtime_checkable
class TokenBackbone(MapBackbone, Protocol):
    """A vision transformer: the CLS token first, then one token for each patch, row by row."""

    feature_dim: int
    """Width D of a token, and of the features, which are the CLS token of the last block."""
    patch: int
    """Side of a patch in pixels; the sides of images are multiples of it."""
    depth: int
    """Number of blocks."""

    def tokens(self, images: Tensor, blocks: int = 1) -> list[Tensor]:
        """Tokens [B, 1 + h w, D] of each of the last `blocks` blocks, through the final norm.

        The last block comes last. ConfigError for more blocks than there are.
        """
        ...

    def last_attention(self, images: Tensor, queries: int = 1) -> Tensor:
        """Attention weights of the last block, [B, heads, queries, 1 + h w].

        Row q says what token q looks at and sums to 1; row 0, the only one unless more are asked
        for, is that of the CLS token.
        """
        ...
