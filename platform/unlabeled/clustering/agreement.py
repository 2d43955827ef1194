"""How much two clusterings of the same rows have in common."""

from __future__ import annotations

import torch
from torch import Tensor


def normalized_mutual_information(first: Tensor, second: Tensor, ignored: int = -100) -> float:
    """2 I(A; B) / (H(A) + H(B)): 0 for independent clusterings, 1 for the same up to names.

    Shapes: labels [N] int64 each, 0 or more; rows with label `ignored` in either are left out. With
    one cluster in both, or no row, 1. Equal on every rank where the labels are.
    Reference: Vinh et al., JMLR 11, 2010 (arithmetic mean); Caron et al. 2018, section 4.1.
    """
    known = (first != ignored) & (second != ignored)
    first, second = first[known], second[known]
    if not len(first):
        return 1.0
    together = first * (int(second.max()) + 1) + second
    entropies = [_entropy(labels) for labels in (first, second, together)]
    total = entropies[0] + entropies[1]
    if total == 0:
        return 1.0
    return max(0.0, 2 * (total - entropies[2]) / total)


def _entropy(labels: Tensor) -> float:
    shares = torch.unique(labels, return_counts=True)[1].double() / len(labels)
    return float(-(shares * shares.log()).sum())
