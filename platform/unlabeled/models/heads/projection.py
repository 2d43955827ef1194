"""The head of the methods that compare embeddings: an MLP, and the unit sphere behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from unlabeled.models.heads.base import HeadOutput
from unlabeled.models.heads.mlp import dimension_problems, mlp, unit_rows
from unlabeled.registry import register


@register("head", "projection")
class ProjectionHead(nn.Module):
    """SimCLR's head: an MLP and L2 normalisation; without the latter, BYOL's two MLPs.

    z = MLP(x) / |MLP(x)|. Shapes: features [N, feature_dim] -> embeddings z [N, output_dim], no
    scores; unit rows are float32 or better whatever the autocast type.
    DDP: batch normalisation, if any, sees this rank's rows unless it is synchronised.
    References: Chen et al. 2020, section 4.2; Grill et al. 2020, section 3.3.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the head."""

        hidden_dim: int = 2048
        """Width of the hidden layers (SimCLR with ResNet-50: 2048)."""

        num_hidden_layers: int = 1
        """Hidden layers: 0 is a single Linear, 1 SimCLR's projection."""

        output_dim: int = 128
        """Dimension of the embeddings (SimCLR: 128)."""

        batch_norm: Literal["none", "hidden", "all"] = "none"
        """Batch normalisation: none (VISSL), after hidden Linears, or after all (the original)."""

        unit_norm: bool = True
        """Scale every embedding to length 1."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            yield from dimension_problems(self.hidden_dim, self.num_hidden_layers, self.output_dim)

    def __init__(self, config: Config, *, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.output_dim = config.output_dim
        self.unit_norm = config.unit_norm
        self.mlp = mlp(
            feature_dim,
            config.hidden_dim,
            config.num_hidden_layers,
            config.output_dim,
            batch_norm=config.batch_norm,
        )

    def forward(self, features: Tensor) -> HeadOutput:
        """The embeddings, on the unit sphere if that is asked for."""
        rows = self.mlp(features)
        return HeadOutput(embeddings=unit_rows(rows) if self.unit_norm else rows)
