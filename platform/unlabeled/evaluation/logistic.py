"""Multinomial logistic regression, solved to the optimum instead of trained for a while."""

from __future__ import annotations

import logging
from collections.abc import Iterator
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
# Smallest p (1 - p) assumed, and smallest penalty as a share of the features' mean curvature: keeps
# the matrix of constant features positive definite in float64.
LEAST_CURVATURE = 1e-9
# Below this change of the mean loss float64 cannot tell better from worse.
NO_CHANGE = 1e-15


@dataclass(frozen=True)
class Solution:
    """A classifier at (or near) the optimum.

    theta: float64 [K, D + 1], weights and, in the last column, biases. gradient: the largest
    absolute entry of the gradient in the coordinates of `solve`, where the curvature is about 1.
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
        self.mean, self.covariance = self._moments()

    def start(self) -> Tensor:
        """Zeros, where all classes are equally likely."""
        return self._zeros(self.num_classes, self.width + 1)

    def __call__(self, theta: Tensor, c: float) -> tuple[Tensor, Tensor]:
        """Value (scalar) and gradient [K, D + 1] at theta [K, D + 1]."""
        sums = self._zeros(1 + theta.numel())
        gradient = sums[1:].view_as(theta)
        for rows, labels, log_p in self._blocks(theta):
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

    def curvature(self, theta: Tensor) -> float:
        """The mean of p (1 - p) over images and classes: how curved the losses are at theta."""
        total = self._zeros(1)
        for _, _, log_p in self._blocks(theta):
            p = log_p.exp()
            total += (p * (1 - p)).sum()
        return float(comm.all_reduce_sum(total)) / (self.count * self.num_classes)

    def _blocks(self, theta: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Rows [n, D], labels [n] and log-probabilities [n, K] of this rank's share."""
        for rows, labels in zip(
            torch.split(self._rows, BLOCK_ROWS), torch.split(self._labels, BLOCK_ROWS), strict=True
        ):
            rows = rows.double()
            scores = rows @ theta[:, :-1].T + theta[:, -1]
            yield rows, labels, F.log_softmax(scores, dim=1)

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean [D] and covariance [D, D] of all rows."""
        sums = self._zeros(self.width + 1, self.width)
        for rows in torch.split(self._rows, BLOCK_ROWS):
            rows = rows.double()
            sums[0] += rows.sum(dim=0)
            sums[1:] += rows.T @ rows
        sums = comm.all_reduce_sum(sums) / self.count
        return sums[0], sums[1:] - torch.outer(sums[0], sums[0])

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=self.device)


class Coordinates:
    """W = U L^-1, b = beta / sqrt(k) - W mean, with L L^T = k covariance + 1 / (c N).

    k is the mean p (1 - p) at `start`. There L L^T is about the curvature of J for every class, so
    that in (U, beta) it is about 1 in all directions, however the features are scaled and
    correlated, and L-BFGS takes tens of steps where it would take thousands.
    """

    def __init__(self, objective: Objective, c: float, start: Tensor) -> None:
        k = max(objective.curvature(start), LEAST_CURVATURE)
        curved = k * objective.covariance
        # Where features are constant the penalty alone keeps the matrix positive definite.
        penalty = 1 / (c * objective.count)
        floor = max(penalty, LEAST_CURVATURE * float(curved.diagonal().mean()))
        self._lower = torch.linalg.cholesky(curved + floor * torch.eye(len(curved)).to(curved))
        self._root, self._mean = k**0.5, objective.mean

    def theta(self, point: Tensor) -> Tensor:
        """(U, beta) as (W, b): [K, D + 1]."""
        weight = torch.linalg.solve_triangular(self._lower, point[:, :-1], upper=False, left=False)
        bias = point[:, -1] / self._root - weight @ self._mean
        return torch.cat([weight, bias.unsqueeze(1)], dim=1)

    def point(self, theta: Tensor) -> Tensor:
        """(W, b) as (U, beta)."""
        weight, bias = theta[:, :-1], theta[:, -1]
        beta = (bias + weight @ self._mean) * self._root
        return torch.cat([weight @ self._lower, beta.unsqueeze(1)], dim=1)

    def gradient(self, gradient: Tensor) -> Tensor:
        """The gradient by (U, beta), given the one by (W, b)."""
        by_bias = gradient[:, -1]
        by_weight = gradient[:, :-1] - torch.outer(by_bias, self._mean)
        by_u = torch.linalg.solve_triangular(self._lower.T, by_weight, upper=True, left=False)
        return torch.cat([by_u, (by_bias / self._root).unsqueeze(1)], dim=1)


@torch.no_grad()
def solve(
    objective: Objective, c: float, *, start: Tensor, tolerance: float, max_iterations: int
) -> Solution:
    """Minimise by L-BFGS with strong Wolfe line searches, from `start` [K, D + 1].

    Ends where no entry of the gradient in `Coordinates` exceeds `tolerance`, or after
    max_iterations. The minimum is unique but for a constant common to all biases, so that `start`
    decides only how soon it is reached. Ranks see the same sums and take the same steps.
    """
    coordinates = Coordinates(objective, c, start)
    point = nn.Parameter(coordinates.point(start))
    optimizer: torch.optim.Optimizer = torch.optim.LBFGS(
        [point],
        max_iter=max_iterations,
        max_eval=2 * max_iterations,
        tolerance_grad=tolerance,
        tolerance_change=NO_CHANGE,
        history_size=HISTORY,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        value, gradient = objective(coordinates.theta(point.detach()), c)
        point.grad = coordinates.gradient(gradient)
        return float(value)

    optimizer.step(closure)
    theta = coordinates.theta(point.detach())
    left = float(coordinates.gradient(objective(theta, c)[1]).abs().max())
    log.debug("logistic regression at C = %g: gradient %.1e", c, left)
    return Solution(theta, left)
