"""Power iteration clustering of whitened features: DeepCluster's other offline codes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unlabeled.assigners.base import OfflineAssigner, OfflineCodes
from unlabeled.clustering.pca import whitened
from unlabeled.clustering.power_iteration import power_iteration_clusters
from unlabeled.config.ranges import at_least
from unlabeled.distributed import comm
from unlabeled.losses.labelled_rows import NO_LABEL
from unlabeled.registry import register


@register("assigner", "power_iteration")
class PowerIteration(OfflineAssigner):
    """The hills of a graph of nearest neighbours, whose number nobody chooses.

    Features are whitened and scaled to unit length as for k-means; see
    `clustering.power_iteration` for the equations. Clusters are numbered by size, the largest
    first; rows of those beyond `num_clusters`, of which a classifier has no output, get -100.
    Shapes: features [n, D] of this rank -> labels [n], no centroids.
    Errors: EnvironmentProblem for search=faiss where it is not installed.
    DDP: the same on every number of ranks; each receives the whitened features of all.
    Reference: Caron et al. 2018, appendix A; the official code, whose defaults these are.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the assigner."""

        whitening_dim: int = 256
        """Principal components that are kept, of more dimensions (DeepCluster: 256)."""
        neighbours: int = 5
        """Nearest rows that a row is joined to (DeepCluster: 5)."""
        sigma: float = 0.2
        """Width of the kernel exp(-distance^2 / sigma^2) (DeepCluster: 0.2)."""
        alpha: float = 0.001
        """Weight of the graph against the uniform vector (DeepCluster: 0.001)."""
        iterations: int = 200
        """Power iterations (DeepCluster: 200)."""
        search: Literal["torch", "faiss"] = "torch"
        """Who finds the nearest rows; both are exact."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            yield from at_least(self, 1, "whitening_dim", "neighbours", "iterations")
            if self.sigma <= 0:
                yield "sigma", f"must be positive, got {self.sigma}; the paper's is 0.2"
            if not 0 < self.alpha < 1:
                yield "alpha", f"must lie between 0 and 1, got {self.alpha}; the paper's is 0.001"

    def __init__(self, config: Config) -> None:
        self.config = config

    def assign(
        self,
        features: Tensor,
        *,
        num_clusters: int,
        seed: int,
        prototypes: Tensor | None = None,
    ) -> OfflineCodes:
        """Cluster the features [n, D] of all ranks; nothing random, `seed` is unused."""
        found = power_iteration_clusters(
            whitened(features, self.config.whitening_dim),
            neighbours=self.config.neighbours,
            sigma=self.config.sigma,
            alpha=self.config.alpha,
            iterations=self.config.iterations,
            search=self.config.search,
        )
        highest = comm.all_reduce_max(torch.cat([found, found.new_zeros(1)]).max())
        counts = torch.bincount(found, minlength=int(highest) + 1)
        order = comm.all_reduce_sum(counts).argsort(descending=True, stable=True)
        places = torch.empty_like(order)
        places[order] = torch.arange(len(order), device=order.device)
        labels = places[found]
        labels[labels >= num_clusters] = NO_LABEL
        scalars = {
            "clusters_found": float(len(order)),
            "unlabelled_rows": float(counts[order[num_clusters:]].sum()),
        }
        return OfflineCodes(labels, None, self.config.iterations, scalars)
