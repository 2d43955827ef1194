"""Lloyd's k-means on features that all ranks hold parts of."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unlabeled.clustering.assignment import nearest_centroids
from unlabeled.clustering.empty_clusters import draw_splits, halve_clusters, split_centroids
from unlabeled.clustering.faiss_library import Backend
from unlabeled.clustering.means import cluster_means, cluster_sums
from unlabeled.data.sampling.permutation import Permutation
from unlabeled.distributed import comm
from unlabeled.errors import ConfigError


@dataclass(frozen=True)
class Clusters:
    """What k-means found.

    centroids: [K, D] float32, equal on every rank; labels: [n] int64 of this rank's rows, by these
    centroids; counts: [K] int64, rows of every cluster over all ranks; objectives: at every
    assignment, the sum of squared distances over all ranks' rows; splits: how often a cluster was
    split for one without rows.
    """

    centroids: Tensor
    labels: Tensor
    counts: Tensor
    objectives: list[float]
    splits: int

    @property
    def empty(self) -> int:
        """Clusters left without rows."""
        return int((self.counts == 0).sum())


@torch.no_grad()
def kmeans(
    features: Tensor,
    num_clusters: int,
    *,
    iterations: int,
    seed: int,
    initial: Tensor | None = None,
    backend: Backend = "auto",
    fill_empty: bool = False,
) -> Clusters:
    """Clusters of small squared distance: argmin_C sum_n min_k |x_n - c_k|^2.

    From random rows, or `initial` centroids [K, D]: each iteration gives every row to its nearest
    centroid and moves every centroid to the mean of its rows; for a cluster without rows one with
    rows is split (see `split_centroids`). One more assignment ends it, `iterations` + 1 in all, or
    fewer where an iteration changed nothing. With `fill_empty`, clusters that are still empty then
    get half of the rows of a full one, at the same distance.
    Shapes: features [n, D] of this rank, of any float type.
    Errors: ConfigError for more clusters than rows; EnvironmentProblem where faiss is asked for and
    not installed.
    DDP: exact over the rows of all ranks, which may hold different numbers, even none; the same as
    one process that holds them in rank order. Per iteration a [K, D] matrix and K + 2 numbers
    travel.
    References: Lloyd 1982; faiss's Clustering, whose iterations and splits these are.
    """
    with torch.autocast(device_type=features.device.type, enabled=False):
        if initial is None:
            centroids = random_rows(features, num_clusters, seed)
        else:
            centroids = initial.to(features.device, torch.float32, copy=True)
        objectives: list[float] = []
        former, splits, split_now = None, 0, 0
        for iteration in range(iterations + 1):
            labels, distances = nearest_centroids(features, centroids, backend)
            objective, changed = _compare(distances, labels, former)
            objectives.append(objective)
            if iteration == iterations or (not split_now and not changed):
                break
            sums, counts = cluster_sums(features, labels, num_clusters)
            centroids = cluster_means(sums, counts, centroids)
            chosen = draw_splits(counts, seed + iteration)
            split_centroids(centroids, chosen)
            former, split_now = labels, len(chosen)
            splits += split_now
        counts = comm.all_reduce_sum(torch.bincount(labels, minlength=num_clusters))
        found = Clusters(centroids, labels, counts, objectives, splits)
        return _filled(found, seed) if fill_empty else found


def random_rows(features: Tensor, count: int, seed: int) -> Tensor:
    """`count` different rows [count, D] float32 of all ranks' features, equal on every rank.

    Which ones depends on the seed and on how many rows there are in all, not on who holds them.
    """
    sizes = comm.all_gather(torch.tensor([len(features)], device=features.device)).tolist()
    total, start = sum(sizes), sum(sizes[: comm.rank()])
    if count > total:
        raise ConfigError(
            f"num_clusters: {count} clusters of only {total} features; ask for {total} or fewer"
        )
    drawn = torch.from_numpy(Permutation(total, seed)(torch.arange(count).numpy()))
    own = (drawn >= start) & (drawn < start + len(features))
    rows = torch.zeros(count, features.shape[1], device=features.device)
    rows[own.to(features.device)] = features[(drawn[own] - start).to(features.device)].float()
    return comm.all_reduce_sum(rows)


def _compare(distances: Tensor, labels: Tensor, former: Tensor | None) -> tuple[float, int]:
    """Over all ranks: the sum of the distances, and how many rows changed their cluster."""
    changed = len(labels) if former is None else (labels != former).sum()
    totals = torch.zeros(2, dtype=torch.float64, device=distances.device)
    totals[0], totals[1] = distances.sum(dtype=torch.float64), changed
    objective, rows = comm.all_reduce_sum(totals).tolist()
    return objective, int(rows)


def _filled(clusters: Clusters, seed: int) -> Clusters:
    """With half of the rows of a full cluster for each that has none, as far as there are rows."""
    chosen = draw_splits(clusters.counts, seed)
    if not chosen:
        return clusters
    halve_clusters(clusters.labels, chosen)
    for cluster, donor in chosen:
        clusters.centroids[cluster] = clusters.centroids[donor]
    counts = torch.bincount(clusters.labels, minlength=len(clusters.counts))
    return replace(
        clusters, counts=comm.all_reduce_sum(counts), splits=clusters.splits + len(chosen)
    )
