"""A weight decay that changes over the run, for every optimizer."""

from __future__ import annotations

import math

import torch


class WeightDecaySchedule:
    """Half a cosine from the optimizer's own weight decay to a final one, over the whole run.

    wd(t) = final + (first - final) (1 + cos(pi t / T)) / 2 for t = 0 .. T-1; later steps keep the
    last value. It holds for the regular parameters: biases and normalisation layers that the
    optimizer excludes stay without decay. A pure function of the step: a checkpoint needs none of
    it.
    Reference: Caron et al. 2021 (DINO), implementation details: 0.04 to 0.4.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, final: float, total_steps: int) -> None:
        self.optimizer, self.final, self.total_steps = optimizer, final, total_steps
        regular = [group for group in optimizer.param_groups if group.get("regular", True)]
        self.first = float(regular[0]["weight_decay"]) if regular else 0.0

    def __call__(self, step: int) -> float:
        """The decay of a step, counted from 0."""
        t = min(step, self.total_steps - 1)
        cosine = 1 + math.cos(math.pi * t / self.total_steps)
        return self.final + 0.5 * (self.first - self.final) * cosine

    def set(self, step: int) -> float:
        """Write the decay of a step into the optimizer; returns it."""
        value = self(step)
        for group in self.optimizer.param_groups:
            if group.get("regular", True):
                group["weight_decay"] = value
        return value
