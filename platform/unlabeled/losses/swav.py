"""SwAV's swapped prediction: every view predicts the codes of the other views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlabeled.losses.precision import at_least_float32, without_autocast
from unlabeled.registry import register


@register("loss", "swav")
class SwAVLoss(nn.Module):
    """Cross-entropy between the codes of the assigned crops and the predictions of all other crops.

    L = 1/|A| sum_{i in A} 1/(V-1) sum_{v != i} mean_n sum_k -q_nk log softmax(s_v / tau)_nk.
    Shapes: scores [V*B, K], crop-major (row v*B+n is crop v of image n); codes: for every assigned
    crop i in A its targets [B, K], rows summing to 1. A collapsed model scores ln K.
    Gradients reach the scores alone; codes are targets. A head with several prototype sets has one
    loss per set, and the caller takes their mean.
    DDP: mean over this rank's images; DDP averages over ranks.
    Reference: Caron et al. 2020, equations (1) and (6) with section 3.2.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the loss."""

        temperature: float = 0.1
        """Divides the scores before the softmax (SwAV, section 4: 0.1)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            if self.temperature <= 0:
                yield "temperature", f"must be positive, got {self.temperature}; SwAV uses 0.1"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.temperature = config.temperature

    def forward(self, scores: Tensor, codes: Mapping[int, Tensor], num_views: int) -> Tensor:
        """The loss of scores [V*B, K] for the codes {assigned crop: [B, K]}."""
        assert num_views > 1 and codes, "a prediction needs a code and another view"
        assert all(0 <= crop < num_views for crop in codes), "codes of a crop that does not exist"
        with without_autocast(scores):
            logits = at_least_float32(scores) / self.temperature
            log_p = torch.log_softmax(logits, dim=1).reshape(num_views, -1, scores.shape[1])
            per_code = [_swapped(log_p, crop, code) for crop, code in codes.items()]
            return torch.stack(per_code).mean()


def _swapped(log_p: Tensor, crop: int, code: Tensor) -> Tensor:
    """Mean over the other views of log_p [V, B, K] of their cross-entropy with one code [B, K]."""
    q = code.detach().to(log_p.dtype)
    others = [-(q * view).sum(dim=1).mean() for v, view in enumerate(log_p) if v != crop]
    return torch.stack(others).mean()
