"""What a head returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class HeadOutput:
    """embeddings: [N, D] (L2-normalised where the head says so); scores: [N, K_h] for each set."""

    embeddings: Tensor
    scores: list[Tensor] = field(default_factory=list)
