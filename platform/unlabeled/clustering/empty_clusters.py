"""What becomes of clusters without rows: a full one is split for each."""

from __future__ import annotations

import torch
from torch import Tensor

from unlabeled.distributed import comm

PERTURBATION = 1 / 1024
"""By which part the two centroids of a split cluster move apart (faiss)."""

Split = tuple[int, int]
"""A cluster without rows, and the one that is split for it."""


def draw_splits(counts: Tensor, seed: int) -> list[Split]:
    """For every empty cluster one with rows, drawn with chances that grow with its size.

    P(j) = (n_j - 1) / sum_i (n_i - 1), as in faiss; a split cluster counts as two halves
    afterwards. counts: [K], of all ranks. Where every row has a cluster of its own, the rest stays
    empty. Equal on every rank for an equal seed; the global generators are left alone.
    """
    empty = (counts == 0).nonzero().flatten().tolist()
    if not empty:
        return []
    generator = torch.Generator().manual_seed(seed)
    left = counts.cpu().clone()
    splits = []
    for cluster in empty:
        ladder = (left - 1).clamp(min=0).cumsum(0)  # [K]
        if int(ladder[-1]) == 0:
            break
        draw = torch.randint(int(ladder[-1]), (1,), generator=generator)
        donor = int(torch.searchsorted(ladder, draw, right=True))
        left[cluster] = left[donor] // 2
        left[donor] -= left[cluster]
        splits.append((cluster, donor))
    return splits


def split_centroids(centroids: Tensor, splits: list[Split]) -> None:
    """Put two centroids, c (1 + e) and c (1 - e), in the place of one, c; `centroids` changes.

    The sign of e = 1/1024 alternates from one dimension to the next. The next assignment divides
    the rows between the two.
    """
    signs = torch.ones(centroids.shape[1], device=centroids.device, dtype=centroids.dtype)
    signs[1::2] = -1
    for empty, donor in splits:
        centre = centroids[donor].clone()
        centroids[empty] = centre * (1 + PERTURBATION * signs)
        centroids[donor] = centre * (1 - PERTURBATION * signs)


def halve_clusters(labels: Tensor, splits: list[Split]) -> None:
    """Give the first half of the donor's rows, rounded up, to the empty cluster, in place.

    labels: [n] of this rank. DDP: the first rows are those of the lowest ranks, as if one process
    held them all. The splits are made one after the other.
    Reference: DeeperCluster (Caron et al. 2019), whose code counts the first rows on every rank.
    """
    if not splits:
        return
    touched = sorted({cluster for split in splits for cluster in split})
    own = torch.stack([(labels == cluster).sum() for cluster in touched])
    held = comm.all_gather(own.unsqueeze(0)).cpu()  # [ranks, clusters touched]
    place = {cluster: number for number, cluster in enumerate(touched)}
    for empty, donor in splits:
        rows = held[:, place[donor]]  # [ranks]
        moved = (rows.sum() + 1) // 2
        before = rows.cumsum(0) - rows
        shares = (moved - before).clamp(min=0).minimum(rows)
        first = (labels == donor).nonzero().flatten()[: int(shares[comm.rank()])]
        labels[first] = empty
        held[:, place[empty]] += shares
        held[:, place[donor]] = rows - shares
