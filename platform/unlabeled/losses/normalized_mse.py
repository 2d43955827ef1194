"""Squared distance between the directions of outputs: BYOL's criterion for any number of views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlabeled.losses.precision import at_least_float32, without_autocast
from unlabeled.registry import register


@register("loss", "normalized_mse")
class NormalizedMSE(nn.Module):
    """Squared distance of the unit vectors of predictions to those of the targets of other views.

    L = 1/|A| sum_{i in A} 1/(V-1) sum_{v != i} mean_n |s_vn/|s_vn| - t_in/|t_in||^2, which is
    2 - 2 cos(s_vn, t_in). Shapes: scores [V*B, K], crop-major (row v*B+n is crop v of image n);
    targets: for every crop i in A its targets [B, K]. Gradients reach the scores alone.
    DDP: mean over this rank's images; DDP averages over ranks.
    Reference: Grill et al. 2020 (BYOL), equation 2; Caron et al. 2021 (DINO), rows with MSE.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Nothing to set."""

    def __init__(self, config: Config) -> None:
        super().__init__()

    def forward(self, scores: Tensor, targets: Mapping[int, Tensor], num_views: int) -> Tensor:
        """The loss of scores [V*B, K] for the targets {crop: [B, K]}."""
        assert num_views > 1 and targets, "a prediction needs a target and another view"
        assert all(0 <= crop < num_views for crop in targets), "targets of a crop that is not there"
        with without_autocast(scores):
            units = functional.normalize(at_least_float32(scores), dim=1)
            views = units.reshape(num_views, -1, scores.shape[1])  # [V, B, K]
            per_target = [_to_other_views(views, crop, rows) for crop, rows in targets.items()]
            return torch.stack(per_target).mean()


def _to_other_views(views: Tensor, crop: int, targets: Tensor) -> Tensor:
    """Mean squared distance of one crop's targets [B, K] to the other crops' units [V, B, K]."""
    t = functional.normalize(targets.detach().to(views.dtype), dim=1)
    others = [(view - t).square().sum(dim=1).mean() for v, view in enumerate(views) if v != crop]
    return torch.stack(others).mean()
