"""Vision Transformers of any size, with the parameter names of DINO and timm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlabeled.config.ranges import positive
from unlabeled.errors import ConfigError
from unlabeled.models.backbones.transformer_block import (
    NORM_EPS,
    Block,
    PatchEmbedding,
    interpolated,
)
from unlabeled.registry import register


@register("backbone", "vit")
class ViT(nn.Module):
    """Vision Transformer: images [B, 3, H, W] -> the CLS token after the final norm, [B, width].

    x_0 = [CLS; patches] + positions; each block adds attention(LN(x)), then MLP(LN(x)); features
    are LN(x_depth) of the CLS token. It offers its tokens, patch map and attention too
    (models/tokens.py). Layer norms have eps 1e-6, attention has a bias on queries, keys and values,
    GELU is exact: official DINO weights give DINO's features. Images of any size are taken, with
    bicubic positions as DINO interpolates them; ConfigError where a side is no multiple of the
    patch. Initialisation: truncated normal of deviation 0.02 and bias 0, patch projection by
    torch's default. Width / depth / heads: ViT-Ti 192 / 12 / 3, ViT-S 384 / 12 / 6, ViT-B 768 / 12
    / 12, with 5.5 M, 21.7 M and 85.8 M parameters at patches of 16 px.
    Reference: Dosovitskiy et al., arXiv:2010.11929; Caron et al., DINO, arXiv:2104.14294.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the backbone; the defaults are ViT-S/16."""

        width: int = 384
        """Numbers in a token, and in the features (ViT-Ti: 192, S: 384, B: 768)."""
        depth: int = 12
        """Blocks."""
        heads: int = 6
        """Heads of attention, which divide the width (ViT-Ti: 3, S: 6, B: 12)."""
        patch: int = 16
        """Side of a patch in pixels; half of it makes four times the tokens."""
        mlp_ratio: float = 4.0
        """Width of an MLP's hidden layer by the width of a token."""
        drop_path: float = 0.0
        """Chance of an image to skip a part of the last block in training; it grows from 0 at the
        first block (DINO: 0.1 in the student)."""
        image_size: int = 224
        """Side of the square images, in pixels, that a position embedding is stored for each patch
        of; other sizes interpolate between them."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            sizes = ("width", "depth", "heads", "patch", "mlp_ratio", "image_size")
            if wrong := list(positive(self, *sizes)):
                yield from wrong
                return
            if self.width % self.heads:
                yield "heads", f"must divide the width of {self.width}, got {self.heads}"
            if self.image_size % self.patch:
                yield (
                    "image_size",
                    f"must be a multiple of the patch of {self.patch} px, got {self.image_size}",
                )
            if not 0 <= self.drop_path < 1:
                yield "drop_path", f"must lie in [0, 1), got {self.drop_path}"

        def block_drop_path(self, block: int) -> float:
            """The chance to skip a part of a block, counted from 0."""
            return self.drop_path * block / max(1, self.depth - 1)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.feature_dim: int = config.width
        self.patch, self.depth = config.patch, config.depth
        grid = (config.image_size // config.patch) ** 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid, config.width))
        self.patch_embed = PatchEmbedding(config.patch, config.width)
        hidden = int(config.width * config.mlp_ratio)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, hidden, config.block_drop_path(block))
            for block in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        self._initialise()
        self.how_to_load = loading_code(config)

    def _initialise(self) -> None:
        for parameter in (self.pos_embed, self.cls_token):
            nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self._embedded(images)
        for block in self.blocks:
            tokens = block(tokens)
        features: Tensor = self.norm(tokens[:, 0])
        return features

    def tokens(self, images: Tensor, blocks: int = 1) -> list[Tensor]:
        """Tokens [B, 1 + h w, D] of each of the last `blocks` blocks, through the final norm."""
        if not 1 <= blocks <= self.depth:
            raise ConfigError(
                f"this ViT has {self.depth} blocks, so tokens of the last {blocks} are not to be "
                f"had; take 1 to {self.depth}"
            )
        tokens, kept = self._embedded(images), []
        for place, block in enumerate(self.blocks, start=1):
            tokens = block(tokens)
            if place > self.depth - blocks:
                kept.append(self.norm(tokens))
        return kept

    def feature_map(self, images: Tensor) -> Tensor:
        """The patch tokens of the last block through the final norm, [B, D, h, w]."""
        patches = self.tokens(images)[0][:, 1:].transpose(1, 2)  # [B, D, h w]
        return torch.unflatten(patches, 2, (images.shape[2] // self.patch, -1))

    def last_attention(self, images: Tensor, queries: int = 1) -> Tensor:
        """Attention weights of the first tokens in the last block, [B, heads, queries, 1 + h w]."""
        *before, last = self.blocks
        tokens = self._embedded(images)
        for block in before:
            tokens = block(tokens)
        assert isinstance(last, Block)
        return last.attn.weights(last.norm1(tokens), queries)

    def _embedded(self, images: Tensor) -> Tensor:
        """What the first block reads, [B, 1 + h w, D]."""
        height, width = images.shape[2:]
        if height % self.patch or width % self.patch:
            raise ConfigError(
                f"images of {height} x {width} px cannot be cut into patches of {self.patch} px; "
                f"give views whose sides are multiples of {self.patch}, or another backbone.patch"
            )
        start = self.cls_token.expand(len(images), -1, -1)
        tokens = torch.cat([start, self.patch_embed(images)], dim=1)
        return tokens + interpolated(self.pos_embed, height, width, self.patch)


def loading_code(config: ViT.Config) -> str:
    """Python that rebuilds the backbone as `m` with timm alone; see `how_to_load`."""
    return (
        "from timm.models.vision_transformer import VisionTransformer\n"
        f"m = VisionTransformer(img_size={config.image_size}, patch_size={config.patch}, "
        f"embed_dim={config.width}, depth={config.depth}, num_heads={config.heads}, "
        f"mlp_ratio={config.mlp_ratio}, num_classes=0)"
    )
