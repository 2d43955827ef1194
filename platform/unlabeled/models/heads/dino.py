"""DINO's head: features to the sphere, and their products with a weight-normalised last layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from unlabeled.config.ranges import at_least
from unlabeled.models.heads.base import HeadOutput
from unlabeled.models.heads.mlp import dimension_problems, mlp, unit_rows
from unlabeled.models.heads.weight_norm import WeightNormLinear
from unlabeled.registry import register


@register("head", "dino")
class DINOHead(nn.Module):
    """An MLP with GELU, L2 normalisation, and a last layer whose rows are unit vectors times g.

    z = MLP(x) / |MLP(x)|, scores_k = g_k <z, v_k / |v_k|>.
    Shapes: features [N, feature_dim] -> embeddings z [N, output_dim] (the bottleneck), scores
    [[N, num_outputs]]. Both are float32 or better, whatever the autocast type. With
    `norm_last_layer` g stays 1 and the scores are cosines. A predictor, if given, works on the
    bottleneck before its normalisation. Initialisation: truncated normal of deviation 0.02 and bias
    0 in the MLP.
    DDP: batch normalisation, if any, sees this rank's rows unless it is synchronised.
    Reference: Caron et al. 2021 (DINO), section 3.1 and appendix C.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the head."""

        hidden_dim: int = 2048
        """Width of the hidden layers."""

        num_hidden_layers: int = 2
        """Hidden layers of the MLP; DINO's MLP has 3 Linear layers, so 2."""

        output_dim: int = 256
        """Dimension of the bottleneck, in which embeddings are unit vectors."""

        batch_norm: bool = False
        """Batch normalisation after every hidden Linear (DINO: with no ViT)."""

        num_outputs: int = 65536
        """Rows K of the last layer (DINO: 65536; 60000 with ResNet-50)."""

        norm_last_layer: bool = True
        """Whether the rows of the last layer keep length 1: steadier; DINO's ViT-S learns them."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            yield from dimension_problems(self.hidden_dim, self.num_hidden_layers, self.output_dim)
            yield from at_least(self, 2, "num_outputs")

    def __init__(self, config: Config, *, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.output_dim, self.num_outputs = config.output_dim, config.num_outputs
        self.mlp = mlp(
            feature_dim,
            config.hidden_dim,
            config.num_hidden_layers,
            config.output_dim,
            batch_norm="hidden" if config.batch_norm else "none",
            activation=nn.GELU,
        )
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.last_layer = WeightNormLinear(
            config.output_dim, config.num_outputs, learn_lengths=not config.norm_last_layer
        )

    def forward(self, features: Tensor, predictor: nn.Module | None = None) -> HeadOutput:
        """Embeddings on the unit sphere, and the scores."""
        bottleneck = self.mlp(features)
        if predictor is not None:
            bottleneck = predictor(bottleneck)
        z = unit_rows(bottleneck)  # [N, output_dim]
        return HeadOutput(embeddings=z, scores=[self.last_layer(z)])
