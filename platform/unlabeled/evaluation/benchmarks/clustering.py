"""Clusters of frozen features, compared with the classes: what is found without any label."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from unlabeled.config.ranges import at_least
from unlabeled.distributed import comm
from unlabeled.errors import DataError
from unlabeled.evaluation.benchmarks.base import Benchmark, Probe, require_labels
from unlabeled.registry import register

log = logging.getLogger(__name__)


@register("benchmark", "clustering")
class Clustering(Benchmark):
    """k-means on frozen features, and how far its clusters are the classes.

    Centroids are those of the smallest sum of squares among `restarts` runs of scikit-learn's
    KMeans (k-means++) on the split `fit_on`; every test image goes to its nearest one. Metrics on
    the test split, in percent: accuracy (clusters named by the one-to-one matching that makes it
    largest, which is the only use of labels; clusters beyond the number of classes get no name),
    nmi (normalised mutual information, arithmetic mean) and ari (adjusted Rand index).
    Raises DataError without labels, with differing classes, or with fewer images than clusters.
    Under DDP the ranks share the encoding and the restarts.
    Reference: Vinh et al., JMLR 11, 2010 (NMI, ARI); Kuhn 1955 (matching).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of `configs/benchmark/clustering.yaml`."""

        num_clusters: int | None = None
        """Clusters; null: as many as there are classes."""
        fit_on: Literal["train", "test"] = "train"
        """The split that the centroids are found on."""
        restarts: int = 10
        """Runs from different first centroids."""
        iterations: int = 300
        """Updates of a run, at most."""
        normalize_features: bool = True
        """Scale every feature vector to unit length first."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            yield from at_least(self, 2, "num_clusters")
            yield from at_least(self, 1, "restarts", "iterations")

    config: Config

    @property
    def protocol(self) -> str:
        number = self.config.num_clusters or "as many clusters as classes"
        scale = "unit" if self.config.normalize_features else "unscaled"
        return (
            f"k-means on {scale} features of the {self.config.fit_on} split, {number}, best of "
            f"{self.config.restarts} runs, clusters matched to classes one to one on the test split"
        )

    def run(self, probe: Probe) -> dict[str, float]:
        require_labels(probe)
        clusters = self.clusters(probe)
        labels = probe.features("test").labels
        assert labels is not None
        return compare(clusters, labels.numpy())

    def clusters(self, probe: Probe) -> np.ndarray:
        """The cluster of every test image, int64 [n], on every rank; no label is looked at."""
        rows = self._rows(probe.features(self.config.fit_on).features)
        number = self.config.num_clusters or len(probe.train.classes)
        if number > len(rows):
            raise DataError(
                f"{number} clusters of only {len(rows)} images in the {self.config.fit_on} split; "
                f"give benchmark.num_clusters of at most {len(rows)}"
            )
        test = self._rows(probe.features("test").features)
        own = [
            self._restart(rows, test, number, seed=(probe.seed, restart))
            for restart in range(comm.rank(), self.config.restarts, comm.world_size())
        ]
        found = [each for part in comm.all_gather_objects(own) for each in part]
        _, _, clusters = min(found, key=lambda each: each[:2])
        used = len(np.unique(clusters))
        if used < number:
            log.info("clustering: test images are in %d of %d clusters", used, number)
        return clusters

    def _restart(
        self, rows: np.ndarray, test: np.ndarray, number: int, seed: tuple[int, int]
    ) -> tuple[float, int, np.ndarray]:
        """(sum of squares, number of the restart, cluster of every test row)."""
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        machine: Any = KMeans(
            number,
            n_init=1,
            max_iter=self.config.iterations,
            random_state=np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed))),
        )
        with warnings.catch_warnings():
            # Of fewer different rows than clusters, and some stay empty: `clusters` says so.
            warnings.simplefilter("ignore", ConvergenceWarning)
            machine.fit(rows)
        return float(machine.inertia_), seed[1], machine.predict(test).astype(np.int64)

    def _rows(self, features: Tensor) -> np.ndarray:
        """float64: sums of squares of float32 would be the same for runs that are not."""
        rows = features.double().numpy()
        if not self.config.normalize_features:
            return rows
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        unit: np.ndarray = rows / np.where(norms > 0, norms, 1)
        return unit


def compare(clusters: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """accuracy, nmi and ari, in percent, of clusters int64 [n] against labels int64 [n], n > 0."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return {
        "accuracy": matched_accuracy(clusters, labels),
        "nmi": 100 * float(normalized_mutual_info_score(labels, clusters)),
        "ari": 100 * float(adjusted_rand_score(labels, clusters)),
    }


def matched_accuracy(clusters: np.ndarray, labels: np.ndarray) -> float:
    """Percentage right under the best one-to-one naming of clusters by classes (Hungarian)."""
    from scipy.optimize import linear_sum_assignment

    together = np.zeros((clusters.max() + 1, labels.max() + 1), dtype=np.int64)
    np.add.at(together, (clusters, labels), 1)
    named, classes = linear_sum_assignment(together, maximize=True)
    return 100 * float(together[named, classes].sum()) / len(labels)
