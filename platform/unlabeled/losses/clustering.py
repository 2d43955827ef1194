"""Classification of every crop into the clusters found offline: DeepCluster-v2 and SeLa-v2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlabeled.losses.labelled_rows import mean_cross_entropy
from unlabeled.losses.precision import at_least_float32
from unlabeled.registry import register


@register("loss", "clustering")
class ClusteringLoss(nn.Module):
    """Cross-entropy of every prototype set's scores against last epoch's cluster labels.

    L = 1/H sum_h mean_{v,n} -log softmax(s_h / tau)[v*B+n, labels_h,n], over labelled images.
    Shapes: scores: H tensors [V*B, K_h], crop-major; labels [H, B] int64, -100 for images that no
    memory bank held. A set whose images are all unlabelled contributes 0 with a zero gradient.
    DDP: mean over this rank's labelled rows; DDP averages over ranks.
    Reference: Caron et al. 2020, appendix D, equation (8).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the loss."""

        temperature: float = 0.1
        """Divides the scores before the softmax (DeepCluster-v2: 0.1)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            if self.temperature <= 0:
                yield "temperature", f"must be positive, got {self.temperature}; the paper uses 0.1"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.temperature = config.temperature

    def forward(self, scores: Sequence[Tensor], labels: Tensor, num_views: int) -> Tensor:
        """The loss of H score tensors [V*B, K_h] for labels [H, B]."""
        assert len(scores) == len(labels) > 0, "one row of labels per prototype set"
        per_set = [
            # Promoted before the division: a half logit would be rounded once more.
            mean_cross_entropy(at_least_float32(s) / self.temperature, row, num_views)
            for s, row in zip(scores, labels, strict=True)
        ]
        return torch.stack(per_set).mean()
