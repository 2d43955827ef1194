"""Sinkhorn-Knopp on the batch: SwAV's online codes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from unlabeled.assigners.base import OnlineAssigner
from unlabeled.distributed import comm
from unlabeled.losses.precision import at_least_float32, without_autocast
from unlabeled.registry import register


@register("assigner", "sinkhorn")
class Sinkhorn(OnlineAssigner):
    """Codes that spread the batch of all ranks evenly over the prototypes.

    Start: Q = exp(S / epsilon), S the [Bt, K] scores of all ranks. Each iteration divides every
    prototype's column by K times its sum, then every sample's row by Bt times its own; the codes
    are Bt Q after the last. Rows sum to 1 exactly, prototypes get Bt/K samples each approximately.
    Shapes: scores [B', K] of this rank (queue rows included) -> codes [B', K], float32 (float64 for
    float64 scores), without gradient.
    DDP: exact over all ranks, which need equal B'; per iteration one K-vector of sums travels. No
    features, no scores. Where exp(S / epsilon) leaves the range of float32, which cosines do only
    for an epsilon below 0.015, a K-vector of maxima and the first sums once more do too.
    Reference: Caron et al. 2020, equations (3) to (5) and listing 1; Cuturi 2013.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the assigner."""

        epsilon: float = 0.05
        """Entropy of the codes; scores are divided by it (SwAV: 0.05; 0.03 against collapse)."""
        iterations: int = 3
        """Row-and-column normalisations (SwAV: 3; SEER: 10)."""
        hard: bool = False
        """Whether each code becomes the one-hot vector of its largest entry (SwAV: soft)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            if not 0 < self.epsilon < math.inf:
                yield "epsilon", f"must be positive, got {self.epsilon}; SwAV uses 0.05"
            if self.iterations < 1:
                yield "iterations", f"must be 1 or more, got {self.iterations}; SwAV uses 3"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    @torch.no_grad()
    def forward(self, scores: Tensor) -> Tensor:
        """Codes [B', K] of this rank's scores [B', K]."""
        with without_autocast(scores):
            logits = at_least_float32(scores) / self.config.epsilon  # [B', K]
            codes = _sinkhorn(logits, self.config.iterations)
            if self.config.hard:
                codes = functional.one_hot(codes.argmax(dim=1), codes.shape[1]).to(codes.dtype)
        return codes


def _sinkhorn(logits: Tensor, iterations: int) -> Tensor:
    """The iteration with logarithmic potentials: Q_nk = exp(logits_nk + f_k + g_n).

    f_k = -log K - LSE_n(logits_nk + g_n) and g_n = -log Bt - LSE_k(logits_nk + f_k) by turns, from
    g = 0. After an update of g the rows of q = Bt Q are softmax(logits_n + f), so g need not be
    kept, and logits_nk + g_n = log q_nk - log Bt - f_k turns the update of f into

        f_k <- f_k + log(Bt / K) - log sum_n q_nk,   one sum over ranks.

    Why nothing overflows or vanishes: for the first update see `_logsumexp`. Later sums add
    probabilities, at most Bt. They are at least 1 / (K Bt): after an update of f, column k of
    exp(logits + f + g) sums to 1/K, so one of its Bt entries is at least 1 / (K Bt), and that
    entry's row, K entries of at most 1/K, sums to at most 1. For K = 3000 and Bt = 8192 that is
    4e-8, far above the smallest float32 (1e-38), whatever epsilon.
    """
    total, clusters = len(logits) * comm.world_size(), logits.shape[1]
    f = -math.log(clusters) - _logsumexp(logits, total)
    codes = torch.softmax(logits + f, dim=1)  # [B', K]
    for _ in range(iterations - 1):
        sums = comm.all_reduce_sum(codes.sum(dim=0))
        f = f + math.log(total / clusters) - sums.log()
        codes = torch.softmax(logits + f, dim=1)
    return codes


def _logsumexp(logits: Tensor, total: int) -> Tensor:
    """LSE_n(logits_nk) [K] over the `total` rows of all ranks.

    The plain sums are right where none is infinite and each is so large that what its entries lost
    by falling below the smallest normal number, at most that number each, is less than rounding:
    sum > total * tiny / eps, 1e-31 a row in float32. Cosines over epsilon stay inside for
    exp(-1 / epsilon) > 1e-31. Elsewhere each prototype's largest logit is subtracted first, so that
    its sum lies in [1, total]. The sums are equal on every rank, and so is the choice.
    """
    sums = comm.all_reduce_sum(logits.exp().sum(dim=0))
    limits = torch.finfo(logits.dtype)
    if bool(((sums > total * limits.tiny / limits.eps) & (sums <= limits.max)).all()):
        return sums.log()
    shift = comm.all_reduce_max(logits.amax(dim=0))
    return shift + comm.all_reduce_sum((logits - shift).exp().sum(dim=0)).log()
