"""MoCo's contrastive loss against a queue of keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlabeled.losses.info_nce_blocks import negatives_logsumexp
from unlabeled.losses.precision import at_least_float32, without_autocast
from unlabeled.registry import register


@register("loss", "moco")
class MoCoLoss(nn.Module):
    """InfoNCE of queries with the key of another crop of their image, against a queue of old keys.

    L = mean over pairs (query crop v, key crop i != v) and images n of
    -log[ e^{q_vn . k_in / tau} / (e^{q_vn . k_in / tau} + sum_j e^{q_vn . u_j / tau}) ].
    Shapes: queries [Q*B, D], crop-major; keys: [B, D] of each key crop; queue u [K, D]; all rows
    L2-normalised. Gradients reach the queries alone: keys and queue come from the teacher.
    Memory: linear in Q*B, see `block_rows`.
    DDP: mean over this rank's queries; the queue is the same on all ranks.
    Reference: He et al., CVPR 2020, equation 1; Chen et al. 2020, arXiv 2003.04297.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the loss."""

        temperature: float = 0.2
        """Divides the cosine similarities (MoCo-v2: 0.2; MoCo: 0.07)."""
        block_rows: int = 256
        """Queries per block; a block takes 4 * block_rows * (keys of the queue) bytes."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            if self.temperature <= 0:
                yield "temperature", f"must be positive, got {self.temperature}; MoCo-v2 uses 0.2"
            if self.block_rows < 1:
                yield "block_rows", f"must be at least 1, got {self.block_rows}; 256 suits most"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.block_rows = config.block_rows

    def forward(
        self, queries: Tensor, crops: Sequence[int], keys: Mapping[int, Tensor], queue: Tensor
    ) -> Tensor:
        """The loss of queries [Q*B, D] of `crops` for the keys {crop: [B, D]} and queue [K, D]."""
        q = at_least_float32(queries)
        none = torch.empty(len(q), 0, dtype=torch.int64, device=q.device)
        negatives = negatives_logsumexp(
            q, queue.detach().to(q.dtype), none, self.temperature, self.block_rows
        )  # [Q*B]
        losses = []
        by_crop = zip(crops, q.chunk(len(crops)), negatives.chunk(len(crops)), strict=True)
        for crop, of_crop, others in by_crop:
            for key_crop, key in keys.items():
                if key_crop == crop:
                    continue
                with without_autocast(q):
                    positive = (of_crop * key.detach().to(q.dtype)).sum(dim=1) / self.temperature
                margin = others - positive
                # log(1 + e^{negatives - positive})
                losses.append(torch.logaddexp(margin, torch.zeros_like(margin)).mean())
        assert losses, "a query needs the key of another crop"
        return torch.stack(losses).mean()
