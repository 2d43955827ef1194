"""Multinomial logistic regression, solved to the optimum instead of trained for a while."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlabeled.distributed import comm

log = logging.getLogger(__name__)

# Rows at once: 8192 x (2048 features + 1000 classes) float64 = 200 MB on the device.
BLOCK_ROWS = 8192
# Pairs of steps and gradients that L-BFGS remembers (scikit-learn and SciPy: 10).
HISTORY = 10
# Below this change of the mean loss float64 cannot tell better from worse.
NO_CHANGE = 1e-15


@dataclass(frozen=True)
class Solution:
    """A classifier at (or near) the optimum.

    theta: float64 [K, D + 1], weights and, in the last column, biases. gradient: the largest
    absolute entry of the objective's gradient there.
    """

    theta: Tensor
    gradient: float

    def scores(self, rows: Tensor) -> Tensor:
        """W f + b: [n, D] -> float64 [n, K], on the device of theta."""
        return rows.to(self.theta) @ self.theta[:, :-1].T + self.theta[:, -1]


class Objective:
    """J(W, b) = mean_n CE(W f_n + b, y_n) + |W|^2 / (2 c N), and its gradient.

    This is scikit-learn's C = c, where the sum of losses is weighted by C and the penalty by 1/2;
    biases are free. rows: [N, D]; labels: int64 [N] in range(num_classes). Computed in float64.
    Under DDP every rank is given all rows, sums over its share of them, and knows the whole sum.
    """

    def __init__(
        self, rows: Tensor, labels: Tensor, *, num_classes: int, device: torch.device
    ) -> None:
        self.count, self.num_classes, self.width = len(rows), num_classes, rows.shape[1]
        rank, ranks = comm.rank(), comm.world_size()
        first, end = (len(rows) * place // ranks for place in (rank, rank + 1))
        self._rows, self._labels = rows[first:end].to(device), labels[first:end].to(device)
        self.device = device

    def start(self) -> Tensor:
        """Zeros, where all classes are equally likely."""
        shape = (self.num_classes, self.width + 1)
        return torch.zeros(shape, dtype=torch.float64, device=self.device)

    @torch.no_grad()
    def __call__(self, theta: Tensor, c: float) -> tuple[Tensor, Tensor]:
        """Value (scalar) and gradient [K, D + 1] at theta [K, D + 1]."""
        sums = torch.zeros(1 + theta.numel(), dtype=torch.float64, device=self.device)
        gradient = sums[1:].view_as(theta)
        for rows, labels in zip(
            torch.split(self._rows, BLOCK_ROWS), torch.split(self._labels, BLOCK_ROWS), strict=True
        ):
            rows = rows.double()
            log_p = F.log_softmax(rows @ theta[:, :-1].T + theta[:, -1], dim=1)  # [n, K]
            sums[0] += F.nll_loss(log_p, labels, reduction="sum")
            error = log_p.exp()
            error[torch.arange(len(labels), device=self.device), labels] -= 1  # p - y
            gradient[:, :-1] += error.T @ rows
            gradient[:, -1] += error.sum(dim=0)
        sums = comm.all_reduce_sum(sums) / self.count
        weight, decay = theta[:, :-1], 1 / (c * self.count)
        value, gradient = sums[0] + decay / 2 * weight.square().sum(), sums[1:].view_as(theta)
        gradient[:, :-1] += decay * weight
        return value, gradient


def solve(
    objective: Objective, c: float, *, start: Tensor, tolerance: float, max_iterations: int
) -> Solution:
    """Minimise by L-BFGS with strong Wolfe line searches, from `start` [K, D + 1].

    Ends where no entry of the gradient exceeds `tolerance`, or after max_iterations. The minimum is
    unique (biases up to a common constant, which keeps the mean that `start` has), so `start`
    decides only how soon it is reached. Ranks see the same sums and take the same steps.
    """
    theta = nn.Parameter(start.clone())
    optimizer: torch.optim.Optimizer = torch.optim.LBFGS(
        [theta],
        max_iter=max_iterations,
        max_eval=2 * max_iterations,
        tolerance_grad=tolerance,
        tolerance_change=NO_CHANGE,
        history_size=HISTORY,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        value, theta.grad = objective(theta.detach(), c)
        return float(value)

    optimizer.step(closure)
    found = theta.detach()
    gradient = float(objective(found, c)[1].abs().max())
    log.debug("logistic regression at C = %g: gradient %.1e", c, gradient)
    return Solution(found, gradient)
