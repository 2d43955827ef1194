"""The centre of a teacher's outputs, which moves from step to step."""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from unlabeled.assigners.base import BatchAssigner
from unlabeled.distributed import comm
from unlabeled.losses.precision import at_least_float32


class MovingCenter(BatchAssigner, abc.ABC):
    """A code-maker that subtracts the mean of the scores of the steps before.

    c <- momentum c + (1 - momentum) mean_n s_n at the end of every step, over the rows that all
    ranks have seen in all its micro-batches; one K-vector travels. c begins as 0, and stays so with
    momentum 1.
    Reference: Caron et al. 2021, equation 4.
    """

    center: Tensor

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self._sum: Tensor | None = None
        self._rows = 0

    def begin(self, num_scores: int) -> None:
        self.register_buffer("center", torch.zeros(num_scores))

    def centred(self, scores: Tensor) -> Tensor:
        """s - c [B', K] in float32 or better; the centre of later steps will have seen s."""
        scores = at_least_float32(scores)
        own = scores.sum(dim=0)
        self._sum = own if self._sum is None else self._sum + own
        self._rows += len(scores)
        return scores - self.center

    def after_step(self) -> None:
        """Move the centre."""
        if self._sum is not None:
            mean = comm.all_reduce_sum(self._sum) / (self._rows * comm.world_size())
            self.center.mul_(self.momentum).add_(mean, alpha=1 - self.momentum)
        self._sum, self._rows = None, 0


def momentum_problem(momentum: float) -> str | None:
    """What is wrong with the momentum of a centre, if anything."""
    if 0 <= momentum <= 1:
        return None
    return f"must lie between 0 (the last step) and 1 (no centre), got {momentum}; DINO uses 0.9"
