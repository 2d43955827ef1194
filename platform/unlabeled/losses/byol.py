"""BYOL's regression of normalised vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlabeled.losses.precision import at_least_float32, without_autocast
from unlabeled.registry import register


@register("loss", "byol")
class BYOLLoss(nn.Module):
    """Squared distance on the unit sphere between predictions and the targets of other crops.

    L = sum_{i in T} 1/(V-1) sum_{v != i} mean_n |p_vn/|p_vn| - t_in/|t_in||^2, each term being
    2 - 2 cos(p, t); for two crops that are both targets this is BYOL's symmetric loss, 0 to 8.
    Shapes: predictions [V*B, D], crop-major; targets: [B, D] of each target crop; neither needs to
    be normalised. Gradients reach the predictions alone.
    DDP: mean over this rank's images; DDP averages over ranks.
    Reference: Grill et al., NeurIPS 2020, equation 2.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Nothing to set."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """None."""
            return iter(())

    def __init__(self, config: Config) -> None:
        super().__init__()

    def forward(self, predictions: Tensor, targets: Mapping[int, Tensor], num_views: int) -> Tensor:
        """The loss of predictions [V*B, D] for the targets {crop: [B, D]}."""
        assert num_views > 1 and targets, "a prediction needs a target and another view"
        with without_autocast(predictions):
            views = F.normalize(at_least_float32(predictions), dim=1).chunk(num_views)
            total = []
            for crop, rows in targets.items():
                target = F.normalize(rows.detach().to(views[0].dtype), dim=1)
                others = [
                    2 - 2 * (view * target).sum(dim=1).mean()
                    for v, view in enumerate(views)
                    if v != crop
                ]
                total.append(torch.stack(others).mean())
            return torch.stack(total).sum()
