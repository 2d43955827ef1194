"""k-means on whitened features: DeepCluster's offline codes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from unlabeled.assigners.base import OfflineAssigner, OfflineCodes
from unlabeled.clustering.faiss_library import Backend
from unlabeled.clustering.kmeans import kmeans
from unlabeled.clustering.pca import whitened
from unlabeled.registry import register


@register("assigner", "kmeans")
class KMeans(OfflineAssigner):
    """Clusters of small squared distance of features that are whitened and scaled to unit length.

    Principal components with unit variance, the first `whitening_dim` of them, then rows of unit
    length, then Lloyd's k-means from random rows, where empty clusters split full ones.
    Shapes: features [n, D] of this rank, of any length -> labels [n], no centroids.
    Errors: ConfigError for more clusters than rows; EnvironmentProblem for backend=faiss where it
    is not installed.
    DDP: exact over all ranks, which may hold different numbers of rows.
    Reference: Caron et al. 2018, section 3.3; the official code, which leaves k-means to faiss.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the assigner."""

        whitening_dim: int | None = 256
        """Principal components that are kept, of features of more dimensions (DeepCluster: 256);
        null: features as they are."""
        iterations: int = 20
        """Updates of the centroids (DeepCluster: 20); it stops before where nothing changes."""
        backend: Backend = "auto"
        """Who finds the nearest centroids: torch, faiss, or auto (faiss where it is installed and
        the features are on the CPU)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            if self.whitening_dim is not None and self.whitening_dim < 1:
                yield "whitening_dim", f"must be 1 or more, or null, got {self.whitening_dim}"
            if self.iterations < 1:
                yield "iterations", f"must be 1 or more, got {self.iterations}; the paper's is 20"

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
        """Cluster the features [n, D] of all ranks."""
        if self.config.whitening_dim is not None:
            features = whitened(features, self.config.whitening_dim)
        found = kmeans(
            features,
            num_clusters,
            iterations=self.config.iterations,
            seed=seed,
            backend=self.config.backend,
        )
        scalars = {
            "mean_squared_distance": found.objectives[-1] / float(found.counts.sum()),
            "empty_clusters": float(found.empty),
            "split_clusters": float(found.splits),
        }
        return OfflineCodes(found.labels, None, len(found.objectives) - 1, scalars)
