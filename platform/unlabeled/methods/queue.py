"""SwAV's queue: past embeddings that help to balance a small batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unlabeled.distributed import comm


class FeatureQueue(nn.Module):
    """The newest embeddings of every assign crop on this rank, newest first.

    features: [num_crops, length, D] in float32; `global_length` is cut down to a multiple of the
    global micro-batch (official code) and divided among the ranks, which differ in it. filled: rows
    pushed over all ranks, up to the global length. The queue is used only once it is full.
    """

    features: Tensor
    filled: Tensor

    def __init__(self, *, num_crops: int, global_length: int, local_batch: int, dim: int) -> None:
        super().__init__()
        length = global_length // (local_batch * comm.world_size()) * local_batch
        self.register_buffer("features", torch.zeros(num_crops, length, dim))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @property
    def length(self) -> int:
        """Rows on this rank."""
        return self.features.shape[1]

    def contents(self, crop: int) -> Tensor | None:
        """[length, D] past embeddings of the n-th assign crop; None while the queue is filling."""
        if self.length == 0 or int(self.filled) < self.length * comm.world_size():
            return None
        return self.features[crop]

    def push(self, embeddings: list[Tensor]) -> None:
        """Put [B, D] of every assign crop at the front and drop as many from the back."""
        if self.length == 0:
            return
        for crop, rows in enumerate(embeddings):
            kept = self.features[crop, : max(self.length - len(rows), 0)].clone()
            self.features[crop] = torch.cat([rows[: self.length], kept])
        ranks = comm.world_size()  # each pushes as many
        self.filled.add_(len(embeddings[0]) * ranks).clamp_(max=self.length * ranks)
