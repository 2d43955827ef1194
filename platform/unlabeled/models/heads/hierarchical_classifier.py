"""The head of DeeperCluster: which super-class, and which class within it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlabeled.data.randomness import mix
from unlabeled.distributed import comm
from unlabeled.distributed.row_groups import group_linear
from unlabeled.distributed.shards import differentiable_rows, held_rows, local
from unlabeled.errors import ConfigError
from unlabeled.models.heads.base import HeadOutput
from unlabeled.registry import register


@register("head", "hierarchical_classifier")
class HierarchicalClassifierHead(nn.Module):
    """A linear classifier of super-classes, and for each of them one of its classes.

    With S = rotations x super_clusters super-classes, r = max(0, x) and a row's super-class g:
    scores U r + u [S] and V_g r + v_g [sub_clusters].
    Shapes: features [N, feature_dim], super-classes [N] int64 -> embeddings = features, scores
    [N, S] and [N, sub_clusters].
    It starts with weights ~ N(0, 0.01) and biases 0, and `reset` starts layers of it again, with
    weights that are a function of the seed and the super-class, whoever holds them.
    Memory: V is S x sub_clusters x feature_dim numbers. After `divide` each of W ranks holds a
    W-th of it: V_g of S / W super-classes, the only ones of its rows then; or, where W is more than
    S, a part of one V_g, whose ranks send each other features and scores (`group_linear`).
    DDP: rows are independent; ranks that call `reset` with one seed get the same weights. Divided,
    the gradient of V is the sum over ranks, of the rows that this rank holds.
    Reference: Caron et al. 2019, section 3.3.
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
        self._ranks_of_one = 1
        self._group: comm.Group = None
        seed = int(torch.randint(2**62, (), device="cpu"))
        # Each begins before the next one is made, so that a rank need not have all of both.
        self.upper = _Undrawn(feature_dim, self.super_classes)
        self.reset([self.upper], seed)
        self.lower = _Undrawn(feature_dim, self.super_classes * self.sub_clusters)
        self.reset([self.lower], seed + 1)

    def divide(self) -> None:
        """Let `lower.weight` be of this rank's rows alone, once they are; all ranks together.

        ConfigError where neither of the numbers of ranks and of super-classes divides the other, or
        the clusters of one not into the ranks that share it.
        """
        ranks, classes = comm.world_size(), self.super_classes
        if classes % ranks and ranks % classes:
            raise ConfigError(
                f"sharding: {classes} super-classes (head.rotations x head.super_clusters) are not "
                f"to be divided evenly among {ranks} processes, nor these among the super-classes; "
                f"start a divisor or a multiple of {classes} processes, or set sharding=none"
            )
        self._ranks_of_one = max(1, ranks // classes)
        if self.sub_clusters % self._ranks_of_one:
            raise ConfigError(
                f"head.sub_clusters: {self.sub_clusters} do not divide into the "
                f"{self._ranks_of_one} processes of each super-class ({ranks} for {classes}); give "
                f"a multiple of {self._ranks_of_one}, or set sharding=none"
            )
        if self._ranks_of_one > 1:
            self._group = comm.own_group(self._ranks_of_one)

    def forward(self, features: Tensor, super_classes: Tensor) -> HeadOutput:
        """Features unchanged, their scores of super-classes and of classes within their own."""
        rows = functional.relu(features) if self.rectify else features
        return HeadOutput(features, [self.upper(rows), self._within(rows, super_classes)])

    def _within(self, rows: Tensor, super_classes: Tensor) -> Tensor:
        """Every row's scores [N, sub_clusters] by the classifier of its super-class."""
        held = held_rows(self.lower.weight)
        weight, bias = differentiable_rows(self.lower.weight), self.lower.bias[held]
        if self._ranks_of_one > 1:
            return group_linear(rows, weight, bias, self._group)
        weights = weight.view(-1, self.sub_clusters, self.output_dim).unbind()
        biases = bias.view(-1, self.sub_clusters).unbind()
        own = super_classes - held.start // self.sub_clusters
        order = own.argsort(stable=True)
        counts = torch.bincount(own, minlength=len(weights)).tolist()
        parts = torch.split(rows[order], counts)  # one for each super-class, perhaps of no row
        scores = [functional.linear(*each) for each in zip(parts, weights, biases, strict=True)]
        return torch.cat(scores)[order.argsort()]

    @torch.no_grad()
    def reset(self, layers: Sequence[nn.Linear], seed: int) -> None:
        """First weights again for some of its layers, other ones for every seed."""
        for layer in layers:
            size = layer.out_features // self.super_classes
            held, rows = held_rows(layer.weight), local(layer.weight)
            for number in range(held.start // size, -(-held.stop // size)):
                generator = torch.Generator().manual_seed(mix(seed, number))
                fresh = torch.empty(size, self.output_dim).normal_(0, 0.01, generator=generator)
                first, stop = max(number * size, held.start), min((number + 1) * size, held.stop)
                rows[first - held.start : stop - held.start] = fresh[
                    first - number * size : stop - number * size
                ]
            layer.bias.zero_()


class _Undrawn(nn.Linear):
    """A linear layer that leaves its first weights to the head, which draws what a rank holds."""

    def reset_parameters(self) -> None:
        """Draw nothing."""
