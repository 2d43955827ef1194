"""Sums and counts of the rows of every cluster, over all ranks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from unlabeled.clustering.chunks import row_chunks, score_chunks
from unlabeled.distributed import comm

CPU_ROWS = 4096


def cluster_sums(features: Tensor, labels: Tensor, num_clusters: int) -> tuple[Tensor, Tensor]:
    """Sums [K, D] float64 and counts [K] int64 of the rows of every cluster.

    Shapes: features [n, D] and labels [n] in range(K) of this rank.
    DDP: over the rows of all ranks, equal on every rank; a [K, D] matrix and a K-vector travel.
    The result depends on the order of the rows alone, so that a resumed run finds the same.
    """
    shape = (num_clusters, features.shape[1])
    sums = torch.zeros(shape, dtype=torch.float64, device=features.device)
    if features.device.type == "cpu":
        for rows in row_chunks(len(features), CPU_ROWS):
            sums.index_add_(0, labels[rows], features[rows].double())
    else:
        # Scattered additions have no fixed order on a GPU; products with one-hot rows have.
        for rows in score_chunks(features, num_clusters):
            block = features[rows].to(torch.promote_types(features.dtype, torch.float32))
            sums += functional.one_hot(labels[rows], num_clusters).to(block.dtype).T @ block
    counts = torch.bincount(labels, minlength=num_clusters)
    return comm.all_reduce_sum(sums), comm.all_reduce_sum(counts)


def cluster_means(sums: Tensor, counts: Tensor, former: Tensor) -> Tensor:
    """The means [K, D], and the former centroid of a cluster without rows, in its type."""
    means = (sums / counts.clamp(min=1).unsqueeze(1)).to(former.dtype)
    return torch.where(counts.unsqueeze(1) > 0, means, former)
