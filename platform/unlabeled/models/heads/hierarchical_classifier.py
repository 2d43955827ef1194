"""The head of DeeperCluster: which super-class, and which class within it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlabeled.models.heads.base import HeadOutput
from unlabeled.registry import register


@register("head", "hierarchical_classifier")
class HierarchicalClassifierHead(nn.Module):
    """A linear classifier of super-classes, and for each of them one of its classes.

    With S = rotations x super_clusters super-classes, r = max(0, x) and a row's super-class g:
    scores U r + u [S] and V_g r + v_g [sub_clusters].
    Shapes: features [N, feature_dim], super-classes [N] int64 -> embeddings = features, scores
    [N, S] and [N, sub_clusters].
    It starts with weights ~ N(0, 0.01) and biases 0, and `reset` starts layers of it again.
    Memory: every rank holds all V, S x sub_clusters x feature_dim numbers.
    DDP: rows are independent; `reset` is a function of its seed, so all ranks get the same weights.
    Reference: Caron et al. 2019, section 3.3. (The official code gives each super-class to a group
    of ranks, which alone holds its V_g.)
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the head."""

        rotations: Literal[1, 4] = 4
        """Turns of an image that count as different super-classes; 1: images are not turned."""
        super_clusters: int = 4
        """Clusters of the first level (DeeperCluster on YFCC100M: 4)."""
        sub_clusters: int = 80000
        """Clusters within each of them (DeeperCluster on YFCC100M: 320,000 / 4)."""
        rectify: bool = True
        """Apply a ReLU to the features first, which DeeperCluster's network ends before."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            for name in ("super_clusters", "sub_clusters"):
                if getattr(self, name) < 1:
                    yield name, f"must be 1 or more, got {getattr(self, name)}"

    def __init__(self, config: Config, *, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.output_dim, self.rectify = feature_dim, config.rectify
        self.rotations, self.super_clusters = config.rotations, config.super_clusters
        self.super_classes = config.rotations * config.super_clusters
        self.sub_clusters = config.sub_clusters
        self.upper = nn.Linear(feature_dim, self.super_classes)
        self.lower = nn.Linear(feature_dim, self.super_classes * self.sub_clusters)
        for layer in (self.upper, self.lower):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor, super_classes: Tensor) -> HeadOutput:
        """Features unchanged, their scores of super-classes and of classes within their own."""
        rows = functional.relu(features) if self.rectify else features
        return HeadOutput(features, [self.upper(rows), self._within(rows, super_classes)])

    def _within(self, rows: Tensor, super_classes: Tensor) -> Tensor:
        """Every row's scores [N, sub_clusters] by the classifier of its super-class."""
        shape = (self.super_classes, self.sub_clusters)
        weights = self.lower.weight.view(*shape, -1).unbind()
        biases = self.lower.bias.view(shape).unbind()
        order = super_classes.argsort(stable=True)
        counts = torch.bincount(super_classes, minlength=self.super_classes).tolist()
        parts = torch.split(rows[order], counts)  # one for each super-class, perhaps of no row
        scores = [functional.linear(*each) for each in zip(parts, weights, biases, strict=True)]
        return torch.cat(scores)[order.argsort()]

    @torch.no_grad()
    def reset(self, layers: Sequence[nn.Linear], seed: int) -> None:
        """First weights again for some of its layers, other ones for every seed."""
        generator = torch.Generator().manual_seed(seed)
        for layer in layers:
            fresh = torch.empty(layer.weight.shape).normal_(0, 0.01, generator=generator)
            layer.weight.copy_(fresh)
            layer.bias.zero_()
