"""Power iteration clustering: the hills of a graph of nearest neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlabeled.clustering.neighbours import Search, nearest
from unlabeled.distributed import comm

Indices = NDArray[np.int64]
Floats = NDArray[np.float32]


@torch.no_grad()
def power_iteration_clusters(
    features: Tensor,
    *,
    neighbours: int = 5,
    sigma: float = 0.2,
    alpha: float = 0.001,
    iterations: int = 200,
    search: Search = "torch",
) -> Tensor:
    """Clusters, as many as there are, of rows of unit length; int64 [n], from 0, none without rows.

    The graph: A_ij = exp(-|x_i - x_j|^2 / sigma^2) for the `neighbours` rows j nearest to i, and
    W = A + A^T. From v = 1/N, `iterations` times v <- (alpha W v + (1 - alpha) / N) / |.|_1. Then
    every row points uphill, to the j of largest W_ij (v_j - v_i) > 0, and a cluster is what leads
    to the same top; a row alone joins the cluster of its nearest neighbour that is not alone.
    In float32, as the official code: v is so even that a row whose neighbours are far sees no slope
    in its digits, and is a top. Float64 would find fewer clusters.
    Shapes: features [n, D] of this rank. DDP: over the rows of all ranks, in rank order; each rank
    receives all rows, finds the neighbours of its own, and all iterate alike on the CPU.
    References: Lin and Cohen 2010; Douze et al. 2017; Caron et al. 2018, appendix, where alpha is
    0.001, sigma 0.2, with 5 neighbours and 200 iterations.
    """
    with torch.autocast(device_type=features.device.type, enabled=False):
        everything = comm.all_gather_rows(features.float())
        near, indices = _neighbours(features.float(), everything, neighbours, search)
    distances = comm.all_gather_rows((2 - 2 * near).clamp(min=0)).cpu().numpy()
    graph = comm.all_gather_rows(indices).cpu().numpy()
    tops = _tops(_similarities(graph, distances, sigma), alpha, iterations)
    labels = _join_singletons(np.unique(tops, return_inverse=True)[1], graph)
    sizes = comm.all_gather(torch.tensor([len(features)], device=features.device)).tolist()
    start = sum(sizes[: comm.rank()])
    own = torch.from_numpy(np.unique(labels, return_inverse=True)[1][start : start + len(features)])
    return own.to(features.device)


def _neighbours(
    own: Tensor, everything: Tensor, count: int, search: Search
) -> tuple[Tensor, Tensor]:
    """Cosines and numbers [n, count] of the rows nearest to each of `own`, without the nearest.

    That is the row itself, or one that equals it.
    """
    near, indices = nearest(everything, own, k=min(count + 1, len(everything)), search=search)
    return near[:, 1:].contiguous(), indices[:, 1:].contiguous()


def _similarities(graph: Indices, distances: Floats, sigma: float) -> Any:
    """W = A + A^T, a sparse matrix [N, N] of float32."""
    from scipy.sparse import csr_matrix

    rows, count = graph.shape
    weights = np.exp(-distances / np.float32(sigma**2))
    one_way = csr_matrix(
        (weights.ravel(), graph.ravel(), np.arange(rows + 1) * count), shape=(rows, rows)
    )
    return (one_way + one_way.T).tocsr()


def _tops(similarities: Any, alpha: float, iterations: int) -> Indices:
    """The top that every row leads to [N]."""
    rows = similarities.shape[0]
    v = np.full(rows, 1 / rows, dtype=np.float32)
    for _ in range(iterations):
        v = alpha * (similarities.T @ v) + np.float32((1 - alpha) / rows)
        v /= v.sum()
    edges = similarities.tocoo()
    sources, targets = edges.row.astype(np.int64), edges.col.astype(np.int64)
    gains = edges.data * (v[targets] - v[sources])
    order = np.lexsort((targets, -gains, sources))  # by source, the largest gain first
    order = order[gains[order] > 0]
    first = np.unique(sources[order], return_index=True)[1]
    pointers: Indices = np.arange(rows)
    pointers[sources[order][first]] = targets[order][first]
    while (pointers[pointers] != pointers).any():  # v rises along the way, so there is an end
        pointers = pointers[pointers]
    return pointers


def _join_singletons(labels: Indices, graph: Indices) -> Indices:
    """Every cluster of one row dissolved into that of the nearest neighbour that has company."""
    alone = np.bincount(labels)[labels] == 1  # [N]
    company = ~alone[graph]  # [N, neighbours]
    first = company.argmax(axis=1)
    joins = alone & company.any(axis=1)
    joined: Indices = labels.copy()
    joined[joins] = labels[graph[joins, first[joins]]]
    return joined
