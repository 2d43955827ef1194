"""How often the right class is among the best: the one definition for every benchmark."""

from __future__ import annotations

import torch
from torch import Tensor

# Rows compared at once: with 10,000 classes a block's three boolean tables take 120 MB.
BLOCK_ROWS = 4096


def label_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """Where each row's own class stands among its scores: 0 is the prediction.

    rank_n = |{c : s_nc > s_ny or (s_nc = s_ny and c < y)}| with y = labels_n: of equal scores the
    lower class number goes first, on every device. scores [n, C], labels [n] -> int64 [n]. A NaN
    beats every score, its own row's label included, so that broken scores never count as right.
    """
    own = scores.gather(1, labels.unsqueeze(1))  # [n, 1]
    lower = torch.arange(scores.shape[1], device=scores.device) < labels.unsqueeze(1)  # [n, C]
    ahead = ~(scores <= own) | ((scores == own) & lower)  # [n, C]
    return ahead.sum(dim=1)


def top_accuracy(scores: Tensor, labels: Tensor, k: int) -> float:
    """Percentage of rows whose class is among the k best; scores [n, C], labels [n], n > 0."""
    blocks = zip(torch.split(scores, BLOCK_ROWS), torch.split(labels, BLOCK_ROWS), strict=True)
    right = sum(int((label_ranks(rows, own) < k).sum()) for rows, own in blocks)
    return 100.0 * right / len(labels)
