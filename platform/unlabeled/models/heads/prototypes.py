"""The head of the clustering family: features to the sphere, and their cosines with prototypes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlabeled.models.heads.base import HeadOutput
from unlabeled.models.heads.mlp import dimension_problems, mlp, unit_rows
from unlabeled.registry import register


@register("head", "prototypes")
class PrototypesHead(nn.Module):
    """SwAV's head: an MLP, L2 normalisation, and the product with one or more prototype sets.

    z = MLP(x) / |MLP(x)|, scores_h = z C_h^T.
    Shapes: features [N, feature_dim] -> embeddings z [N, output_dim], scores [N, K_h] for each set.
    The scores are cosines once the rows of C are normalised; when that happens is the method's
    decision (`normalize_prototypes`). Both are float32 or better, whatever the autocast type.
    DDP: batch normalisation sees this rank's rows unless it is synchronised.
    Reference: Caron et al. 2020, section 4 and appendix A.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the head."""

        hidden_dim: int = 2048
        """Width of the hidden layers (SwAV: 2048; 8192 for RN50w2 and w4, 10240 for w5)."""

        num_hidden_layers: int = 1
        """Hidden layers: 0 is a single Linear, 1 SwAV's projection, 2 SEER's."""

        output_dim: int = 128
        """Dimension of the embeddings and of the prototypes (SwAV: 128)."""

        batch_norm: bool = True
        """Batch normalisation after every hidden Linear."""

        num_prototypes: list[int] = field(default_factory=lambda: [3000])
        """Prototypes of each set (SwAV: one set of 3000; DeepCluster-v2: three)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            yield from dimension_problems(self.hidden_dim, self.num_hidden_layers, self.output_dim)
            if not self.num_prototypes or min(self.num_prototypes) < 1:
                yield (
                    "num_prototypes",
                    f"needs positive numbers, got {self.num_prototypes}; SwAV uses [3000]",
                )

    def __init__(self, config: Config, *, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.output_dim = config.output_dim
        self.mlp = mlp(
            feature_dim,
            config.hidden_dim,
            config.num_hidden_layers,
            config.output_dim,
            batch_norm="hidden" if config.batch_norm else "none",
        )
        self.prototypes = nn.ModuleList(
            nn.Linear(config.output_dim, count, bias=False) for count in config.num_prototypes
        )

    def forward(self, features: Tensor) -> HeadOutput:
        """Embeddings on the unit sphere and the scores of every prototype set."""
        z = unit_rows(self.mlp(features))  # [N, output_dim]
        # Half-precision cosines lie 2^-11 apart below 1: over epsilon = 0.05 that is 0.01 in the
        # exponent of a code. VISSL's sharded SwAV head needs float32 here to converge at all.
        with torch.autocast(device_type=z.device.type, enabled=False):
            scores = [F.linear(z, weight.to(z.dtype)) for weight in self.prototype_weights()]
        return HeadOutput(embeddings=z, scores=scores)

    def prototype_weights(self) -> list[Tensor]:
        """The prototypes of each set, [K_h, output_dim]."""
        return [module.get_parameter("weight") for module in self.prototypes]

    @torch.no_grad()
    def normalize_prototypes(self) -> None:
        """Scale every prototype to unit L2 norm, in place; an all-zero prototype stays zero."""
        for weight in self.prototype_weights():
            weight.copy_(unit_rows(weight))
