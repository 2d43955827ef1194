"""The head of methods that classify into classes of their own making: clusters, rotations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlabeled.config.ranges import at_least
from unlabeled.models.heads.base import HeadOutput
from unlabeled.registry import register


@register("head", "classifier")
class ClassifierHead(nn.Module):
    """A linear classifier of the rectified features: logits = W max(0, x) + b.

    Shapes: features [N, feature_dim] -> embeddings = features, scores = [logits [N, outputs]].
    It starts with W ~ N(0, 0.01) and b = 0, and `reset` starts it again (DeepCluster: at every
    epoch). Backbones that end in an activation are not changed by the rectification.
    DDP: rows are independent; `reset` is a function of its seed, so all ranks get the same weights.
    Reference: Caron et al. 2018, section 3.2; `top_layer` of the official code.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the head."""

        outputs: int = 10000
        """Classes: clusters (DeepCluster on ImageNet: 10,000), or 4 rotations."""
        rectify: bool = True
        """Apply a ReLU to the features first, which DeepCluster's networks end before."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            yield from at_least(self, 2, "outputs")

    def __init__(self, config: Config, *, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.output_dim, self.outputs, self.rectify = feature_dim, config.outputs, config.rectify
        self.classifier = nn.Linear(feature_dim, config.outputs)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, features: Tensor) -> HeadOutput:
        """Features unchanged, and their logits as the only scores."""
        rows = functional.relu(features) if self.rectify else features
        return HeadOutput(embeddings=features, scores=[self.classifier(rows)])

    @torch.no_grad()
    def reset(self, seed: int) -> None:
        """First weights again, other ones for every seed and the same on every rank."""
        generator = torch.Generator().manual_seed(seed)
        weight = torch.empty(self.classifier.weight.shape).normal_(0, 0.01, generator=generator)
        self.classifier.weight.copy_(weight)
        self.classifier.bias.zero_()
