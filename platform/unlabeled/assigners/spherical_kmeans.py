"""Spherical k-means over the features of the last epoch: DeepCluster-v2's offline codes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from unlabeled.assigners.base import OfflineAssigner, OfflineCodes
from unlabeled.clustering.assignment import largest_products
from unlabeled.clustering.means import cluster_means, cluster_sums
from unlabeled.distributed import comm
from unlabeled.errors import ConfigError
from unlabeled.losses.precision import at_least_float32, without_autocast
from unlabeled.registry import register


@register("assigner", "spherical_kmeans")
class SphericalKMeans(OfflineAssigner):
    """Clusters of unit vectors by cosine: argmax_C sum_n max_k z_n . c_k with unit centroids c_k.

    Lloyd's algorithm from `num_clusters` rows of rank 0 drawn at random: each iteration assigns
    rows to their best centroid (the first of equals), replaces each centroid by the mean of its
    rows and normalises it; a centroid without rows stays. One more assignment ends it.
    Shapes: features [n, D] of this rank, unit rows -> labels [n], centroids [K, D].
    Errors: ConfigError if rank 0 has fewer rows than there are clusters.
    DDP: exact over all ranks, which may hold different numbers of rows; per iteration a [K, D]
    matrix of sums and a K-vector of counts travel.
    Reference: Caron et al. 2020, appendix D.1; `cluster_memory` of the official code.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the assigner."""

        iterations: int = 10
        """Updates of the centroids (official code: 10)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            if self.iterations < 1:
                yield "iterations", f"must be 1 or more, got {self.iterations}; the paper's is 10"

    def __init__(self, config: Config) -> None:
        self.config = config

    @torch.no_grad()
    def assign(
        self,
        features: Tensor,
        *,
        num_clusters: int,
        seed: int,
        prototypes: Tensor | None = None,
        initial: Tensor | None = None,
    ) -> OfflineCodes:
        """Cluster the features [n, D] of all ranks, from `initial` centroids [K, D] if given."""
        with without_autocast(features):
            features = at_least_float32(features)
            if initial is None:
                initial = random_rows(features, num_clusters, seed)
            steps = lloyd(features, initial, self.config.iterations)
            centroids, labels = deque(steps, maxlen=1).pop()
            scalars = _describe(features, centroids, labels)
        return OfflineCodes(labels, centroids, self.config.iterations, scalars)


def random_rows(features: Tensor, count: int, seed: int) -> Tensor:
    """`count` different rows of rank 0's features, on every rank."""
    available = int(comm.broadcast(torch.tensor(len(features), device=features.device)))
    if count > available:
        raise ConfigError(
            f"head.num_prototypes: k-means draws its {count} first centroids from the features of "
            f"rank 0, which holds {available}; ask for {available} prototypes or fewer, or give "
            "each process more images (a larger data set or fewer processes)"
        )
    # The global generator stays as it is: clustering must not shift any other random choice.
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(available, generator=generator)[:count].to(features.device)
    if comm.rank() == 0:
        return comm.broadcast(features[rows])
    return comm.broadcast(features.new_empty(count, features.shape[1]))


def lloyd(features: Tensor, centroids: Tensor, iterations: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Each assignment's centroids [K, D] and labels [n]: `iterations` + 1 of them."""
    _, labels = largest_products(features, centroids)
    yield centroids, labels
    for _ in range(iterations):
        sums, counts = cluster_sums(features, labels, len(centroids))
        centroids = functional.normalize(cluster_means(sums, counts, centroids), dim=1)
        _, labels = largest_products(features, centroids)
        yield centroids, labels


def _describe(features: Tensor, centroids: Tensor, labels: Tensor) -> dict[str, float]:
    """The objective per row and the number of clusters without rows, over all ranks."""
    cosines = (features * centroids[labels]).sum(dim=1, dtype=torch.float64)
    total = torch.stack([cosines.sum(), cosines.new_tensor(len(cosines))])
    comm.all_reduce_sum(total)
    counts = comm.all_reduce_sum(torch.bincount(labels, minlength=len(centroids)))
    return {
        "mean_cosine": float(total[0] / total[1]),
        "empty_clusters": float((counts == 0).sum()),
    }
