"""Logistic regression on frozen features: the best hyperplane, with one number to choose."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unlabeled.config.ranges import positive
from unlabeled.data.sampling.permutation import Permutation
from unlabeled.errors import DataError
from unlabeled.evaluation.accuracy import label_ranks
from unlabeled.evaluation.benchmarks.base import Benchmark, Probe, Test, require_labels
from unlabeled.evaluation.logistic import BLOCK_ROWS, Objective, Solution, solve
from unlabeled.registry import register

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """The classifier of all training images, and how its regularisation was chosen."""

    solution: Solution
    log10_c: float
    held_out_top1: float


@register("benchmark", "linear_features")
class LinearFeatures(Benchmark):
    """Multinomial logistic regression on frozen features, with as much L2 as held-out images want.

    Every image is encoded once, under the evaluation view. For every C of the sweep
    1/2 |W|^2 + C sum_n CE(W f_n + b, y_n) is minimised on the training images but a held-out part
    of every class; the C that classifies this part best (of equal ones the smallest) is then used
    with all of them. Metrics: top1 and top5 in percent; log10_c, the power of ten that was chosen;
    top1_held_out, its percentage on the held-out part. The test split chooses nothing.
    Raises DataError without labels, with differing classes, or where no image can be held out.
    Under DDP the ranks share the encoding and the sums over images.
    Reference: Oquab et al., DINOv2, arXiv:2304.07193, and its log_regression.py; Radford et al.,
    CLIP, arXiv:2103.00020, appendix A.3.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of `configs/benchmark/linear_features.yaml`."""

        c_powers: tuple[float, float] = (-6.0, 5.0)
        """Powers of ten that C is swept between (DINOv2; CLIP: -6 to 6)."""
        c_count: int = 45
        """Values of C, equally spaced in their powers (DINOv2; CLIP: 96)."""
        held_out: float = 0.1
        """Share of every class's training images that chooses C (DINOv2: of all images)."""
        tolerance: float = 1e-5
        """Largest entry of the gradient at which a classifier counts as solved, in coordinates
        where the loss is curved by about 1."""
        max_iterations: int = 1000
        """Steps of L-BFGS after which it is taken as it is (DINOv2, CLIP)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            low, high = self.c_powers
            if low > high or (low == high) != (self.c_count == 1):
                yield (
                    "c_powers",
                    f"must rise, or be equal for c_count=1, got {[low, high]} for {self.c_count}",
                )
            yield from positive(self, "c_count", "tolerance", "max_iterations")
            if not 0 < self.held_out < 1:
                yield "held_out", f"must lie between 0 and 1, got {self.held_out}"

        def powers(self) -> list[float]:
            """Powers of ten of every C, rising."""
            return [float(power) for power in np.linspace(*self.c_powers, self.c_count)]

    config: Config

    @property
    def protocol(self) -> str:
        low, high = self.config.c_powers
        return (
            "logistic regression on frozen features, each image encoded once, "
            f"{self.config.c_count} values of C in 1e{low:g}..1e{high:g} compared on "
            f"{100 * self.config.held_out:g} % of the training images, refit on all (DINOv2, "
            "arXiv:2304.07193)"
        )

    def run(self, probe: Probe) -> dict[str, float]:
        return self.fitted(probe)(probe)

    def fitted(self, probe: Probe) -> Test:
        require_labels(probe)
        choice = self.train(probe)

        def test(other: Probe) -> dict[str, float]:
            found = other.features("test")
            assert found.labels is not None
            top1, top5 = accuracy(choice.solution, found.features, found.labels)
            return {
                "top1": top1,
                "top5": top5,
                "log10_c": choice.log10_c,
                "top1_held_out": choice.held_out_top1,
            }

        return test

    def train(self, probe: Probe) -> Choice:
        """Choose C and solve for all training images; nothing of the test split is looked at."""
        train = probe.features("train")
        rows, labels = train.features, train.labels
        assert labels is not None
        held_out = held_out_rows(labels, share=self.config.held_out, seed=probe.seed)

        def objective(chosen: Tensor) -> Objective:
            return Objective(
                rows[chosen],
                labels[chosen],
                num_classes=probe.train.num_classes,
                device=probe.device,
            )

        best = self._sweep(objective(~held_out), rows[held_out], labels[held_out])
        everything = objective(torch.ones_like(held_out))
        solution = self._solve(everything, best.log10_c, start=best.solution.theta)
        if solution.gradient > self.config.tolerance:
            log.warning(
                "linear_features: stopped at a gradient of %.1e, not %.1e; give more "
                "benchmark.max_iterations",
                solution.gradient,
                self.config.tolerance,
            )
        return Choice(solution, best.log10_c, best.held_out_top1)

    def _sweep(self, objective: Objective, rows: Tensor, labels: Tensor) -> Choice:
        """The C that classifies the held-out rows best, with its classifier of the others."""
        powers, found = self.config.powers(), []
        theta = objective.start()
        for power in powers:
            solution = self._solve(objective, power, start=theta)
            theta = solution.theta  # close to the solution of the next, slightly larger C
            found.append(Choice(solution, power, accuracy(solution, rows, labels)[0]))
        best = max(found, key=lambda choice: choice.held_out_top1)  # the first of equal ones
        if best.log10_c in (powers[0], powers[-1]) and len(powers) > 1:
            log.warning(
                "linear_features: C = 1e%g, an end of the sweep, was best; a wider range in "
                "benchmark.c_powers may be better",
                best.log10_c,
            )
        return best

    def _solve(self, objective: Objective, power: float, *, start: Tensor) -> Solution:
        return solve(
            objective,
            10.0**power,
            start=start,
            tolerance=self.config.tolerance,
            max_iterations=self.config.max_iterations,
        )


def held_out_rows(labels: Tensor, *, share: float, seed: int) -> Tensor:
    """Which rows are held out: bool [N], of every class the share (rounded), never all of it.

    A function of (labels, share, seed). DataError where no class is large enough.
    """
    held_out = np.zeros(len(labels), dtype=bool)
    for label in torch.unique(labels).tolist():
        members = np.flatnonzero(labels.numpy() == label)
        order = Permutation(len(members), seed, label)(np.arange(len(members)))
        held_out[members[order[: min(round(share * len(members)), len(members) - 1)]]] = True
    if not held_out.any():
        raise DataError(
            f"held_out={share:g} of every class leaves no training image to choose C by: the "
            f"largest class has {int(torch.bincount(labels).max())}; give a larger "
            "benchmark.held_out"
        )
    return torch.from_numpy(held_out)


@torch.no_grad()
def accuracy(solution: Solution, rows: Tensor, labels: Tensor) -> tuple[float, float]:
    """Top-1 and top-5 in percent, a block of rows at a time."""
    right = torch.zeros(2, dtype=torch.int64)
    for block, own in zip(
        torch.split(rows, BLOCK_ROWS), torch.split(labels, BLOCK_ROWS), strict=True
    ):
        scores = solution.scores(block)
        ranks = label_ranks(scores, own.to(scores.device))
        right += torch.stack([(ranks < 1).sum(), (ranks < 5).sum()]).cpu()
    top1, top5 = (100 * right.double() / len(labels)).tolist()
    return top1, top5
