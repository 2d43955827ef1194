"""Centring without sharpening: targets for losses that compare outputs and not distributions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unlabeled.assigners.moving_center import MovingCenter, momentum_problem
from unlabeled.losses.precision import without_autocast
from unlabeled.registry import register


@register("assigner", "centered_scores")
class CenteredScores(MovingCenter):
    """The scores themselves without their moving centre: s_n - c, for loss=normalized_mse.

    c moves as that of `centering`. These are no codes: rows do not sum to 1.
    Shapes: scores [B', K] of this rank -> targets [B', K], float32 (float64 for float64 scores).
    DDP: exact over all ranks, which need equal B'; one K-vector travels a step.
    Reference: Caron et al. 2021 (DINO), table of its relation to MoCo-v2 and BYOL, rows with MSE.
    """

    makes_codes: ClassVar[bool] = False

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the assigner."""

        momentum: float = 0.9
        """Share of the centre that a step keeps (DINO: 0.9); 1: no centre."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            fault = momentum_problem(self.momentum)
            if fault:
                yield "momentum", fault

    def __init__(self, config: Config) -> None:
        super().__init__(config.momentum)

    @torch.no_grad()
    def forward(self, scores: Tensor) -> Tensor:
        """Targets [B', K] of this rank's scores [B', K]."""
        with without_autocast(scores):
            return self.centred(scores)
