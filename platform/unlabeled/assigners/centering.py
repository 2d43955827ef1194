"""Centring and sharpening: DINO's targets from the outputs of a teacher."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from unlabeled.assigners.moving_center import MovingCenter, momentum_problem
from unlabeled.config.ranges import at_least
from unlabeled.losses.precision import without_autocast
from unlabeled.methods.base import Progress
from unlabeled.registry import register


@register("assigner", "centering")
class Centering(MovingCenter):
    """Codes of a batch by a moving centre and a low temperature.

    q_n = softmax((s_n - c) / temperature), then c <- momentum c + (1 - momentum) mean_n s_n at the
    end of the step, over its rows of all ranks. A temperature of 0 is its limit, the one-hot vector
    of the largest entry (the hard teacher). Without the centre (momentum 1) one dimension takes
    all; without a low temperature the codes become uniform.
    Shapes: scores [B', K] of this rank -> codes [B', K], float32 (float64 for float64 scores).
    DDP: exact over all ranks, which need equal B'; one K-vector travels a step.
    Reference: Caron et al. 2021 (DINO), section 3.1 and equation 4.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the assigner."""

        temperature: float = 0.04
        """Divides the centred scores (DINO: 0.04, or 0.07 after a warm-up); 0: one-hot codes."""
        warmup_temperature: float = 0.04
        """Temperature of the first epoch."""
        warmup_epochs: int = 0
        """Epochs over which it rises in equal steps, one value an epoch (DINO: 0, 30 or 50)."""
        momentum: float = 0.9
        """Share of the centre that a step keeps (DINO: 0.9); 1: no centre."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            yield from at_least(self, 0, "temperature", "warmup_temperature", "warmup_epochs")
            fault = momentum_problem(self.momentum)
            if fault:
                yield "momentum", fault

    def __init__(self, config: Config) -> None:
        super().__init__(config.momentum)
        self.config = config
        self.temperature = self.temperature_of(epoch=0)

    def temperature_of(self, epoch: int) -> float:
        """The temperature of an epoch, counted from 0."""
        first, last, epochs = (
            self.config.warmup_temperature,
            self.config.temperature,
            self.config.warmup_epochs,
        )
        if epoch >= epochs or (epochs > 1 and epoch == epochs - 1):
            return last
        return first + epoch * (last - first) / max(epochs - 1, 1)

    def before_step(self, progress: Progress) -> None:
        self.temperature = self.temperature_of(progress.epoch)

    @torch.no_grad()
    def forward(self, scores: Tensor) -> Tensor:
        """Codes [B', K] of this rank's scores [B', K]."""
        with without_autocast(scores):
            centred = self.centred(scores)
            if self.temperature == 0:
                best = centred.argmax(dim=1)
                return functional.one_hot(best, centred.shape[1]).to(centred.dtype)
            return torch.softmax(centred / self.temperature, dim=1)
