"""Lloyd's k-means on features that all ranks hold parts of."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    centroids; objectives: at every assignment, the sum of squared distances over all ranks' rows;
    splits: how often a cluster was split for one without rows; empty: clusters left without.
    """

    centroids: Tensor
    labels: Tensor
    objectives: list[float] = field(default_factory=list)
    splits: int = 0
    empty: int = 0


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
    one process that holds them in rank order. Per iteration a [K, D] matrix and K numbers travel.
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
            objectives.append(_total(distances))
            if iteration == iterations or (not split_now and _repeats(labels, former)):
                break
            sums, counts = cluster_sums(features, labels, num_clusters)
            centroids = cluster_means(sums, counts, centroids)
            chosen = draw_splits(counts, seed + iteration)
            split_centroids(centroids, chosen)
            former, split_now = labels, len(chosen)
            splits += split_now
        return _finished(Clusters(centroids, labels, objectives, splits), fill_empty, seed)


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


def _total(distances: Tensor) -> float:
    return float(comm.all_reduce_sum(distances.sum(dtype=torch.float64)))


def _repeats(labels: Tensor, former: Tensor | None) -> bool:
    """Whether no row of any rank changed its cluster."""
    if former is None:
        return False
    return int(comm.all_reduce_sum((labels != former).sum())) == 0


def _finished(clusters: Clusters, fill_empty: bool, seed: int) -> Clusters:
    """With the empty clusters counted, and filled if they shall be."""
    centroids, labels = clusters.centroids, clusters.labels
    counts = comm.all_reduce_sum(torch.bincount(labels, minlength=len(centroids)))
    empty, chosen = int((counts == 0).sum()), draw_splits(counts, seed) if fill_empty else []
    halve_clusters(labels, chosen)
    for cluster, donor in chosen:
        centroids[cluster] = centroids[donor]
    return Clusters(
        centroids,
        labels,
        clusters.objectives,
        clusters.splits + len(chosen),
        empty - len(chosen),
    )
