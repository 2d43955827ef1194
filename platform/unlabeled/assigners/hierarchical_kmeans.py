"""k-means on two levels: DeeperCluster's offline codes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from unlabeled.assigners.base import OfflineAssigner, OfflineCodes
from unlabeled.clustering.faiss_library import Backend
from unlabeled.clustering.kmeans import Clusters, kmeans
from unlabeled.clustering.pca import whitened
from unlabeled.config.ranges import at_least
from unlabeled.errors import ConfigError
from unlabeled.registry import register


@register("assigner", "hierarchical_kmeans")
class HierarchicalKMeans(OfflineAssigner):
    """Super-clusters of all features, and clusters within each of them.

    Features are whitened and scaled to unit length. k-means finds `super_clusters` clusters, and
    once more K / super_clusters within each; label = super-cluster x K / super_clusters + cluster.
    Clusters without rows at the end get half of a full one, so that a cluster is empty only where a
    super-cluster has fewer rows than clusters.
    Shapes: features [n, D] of this rank -> labels [n], no centroids.
    Errors: ConfigError where K does not divide by `super_clusters`, or exceeds the rows;
    EnvironmentProblem for backend=faiss where it is not installed.
    DDP: exact over all ranks on both levels. (The official code gives every super-cluster to a
    group of ranks, which moves its features there first.)
    Reference: Caron et al. 2019, "Unsupervised Pre-Training of Image Features on Non-Curated Data",
    section 3; the official `distributed_kmeans`.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the assigner."""

        super_clusters: int = 4
        """Clusters of the first level (DeeperCluster on YFCC100M: 4)."""
        whitening_dim: int | None = 4096
        """Principal components that are kept, of features of more dimensions (DeeperCluster: 4096,
        all of VGG-16's); null: features as they are."""
        iterations: int = 10
        """Updates of the centroids on each level (DeeperCluster: 10)."""
        backend: Backend = "auto"
        """Who finds the nearest centroids: torch, faiss, or auto (faiss where it is installed and
        the features are on the CPU)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            yield from at_least(self, 1, "super_clusters", "iterations")
            if self.whitening_dim is not None and self.whitening_dim < 1:
                yield "whitening_dim", f"must be 1 or more, or null, got {self.whitening_dim}"

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
        """Cluster the features [n, D] of all ranks into `num_clusters` clusters in all."""
        size, rest = divmod(num_clusters, self.config.super_clusters)
        if rest:
            raise ConfigError(
                f"assigner.super_clusters: {num_clusters} clusters do not divide into "
                f"{self.config.super_clusters} super-clusters; give a divisor of {num_clusters}"
            )
        if self.config.whitening_dim is not None:
            features = whitened(features, self.config.whitening_dim)
        first = self._clusters(features, self.config.super_clusters, seed)
        labels, counts, distances = first.labels * size, [], 0.0
        for number, rows in enumerate(first.counts.tolist()):
            own = (first.labels == number).nonzero().flatten()
            second = self._clusters(features[own], min(size, rows), seed + 1 + number)
            labels[own] += second.labels
            counts += [*second.counts.tolist(), *[0] * (size - len(second.counts))]
            distances += second.objectives[-1]
        scalars = {
            "mean_squared_distance": distances / sum(counts),
            "empty_clusters": float(counts.count(0)),
            "smallest_super_cluster": float(first.counts.min()),
        }
        return OfflineCodes(labels, None, self.config.iterations, scalars)

    def _clusters(self, features: Tensor, count: int, seed: int) -> Clusters:
        return kmeans(
            features,
            count,
            iterations=self.config.iterations,
            seed=seed,
            backend=self.config.backend,
            fill_empty=True,
        )
