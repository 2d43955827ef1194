"""Sinkhorn-Knopp over the features of the last epoch: SeLa-v2's offline codes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from unlabeled.assigners.base import OfflineAssigner, OfflineCodes
from unlabeled.clustering.chunks import row_chunks
from unlabeled.config.ranges import at_least
from unlabeled.distributed import comm
from unlabeled.losses.precision import at_least_float32, without_autocast
from unlabeled.registry import register


@register("assigner", "sinkhorn_dataset")
class SinkhornDataset(OfflineAssigner):
    """Labels that spread the whole data set evenly over the given prototypes.

    Potentials by turns, from g = 0, for N rows on all ranks and scores s_nk = z_n . c_k:
    f_k = -log K - LSE_n(s_nk / epsilon + g_n) and g_n = -log N - LSE_k(s_nk / epsilon + f_k);
    label_n = argmax_k(s_nk / epsilon + f_k). Every `check_every` iterations it stops if no factor
    exp(g_n) changed by more than the share `tolerance` in the last one.
    This is our definition of SeLa-v2's assignment, which was never released: the paper solves it
    with the same loss as SeLa and gives neither epsilon nor stopping rule. At convergence SeLa's
    kernel softmax(s / tau)^lambda gives the same labels as epsilon = tau / lambda (SeLa: 0.1 / 25 =
    0.004), for the factor of each row is absorbed by g.
    Shapes: features [n, D] of this rank, prototypes [K, D], unit rows -> labels [n], no centroids.
    DDP: exact over all ranks, which may hold different numbers of rows; once a K-vector of maxima,
    per iteration a K-vector of sums, and per check one number travel. Scores are recomputed in
    chunks of rows and never stored.
    Reference: Caron et al. 2020, appendix D.1 and D.2; Asano et al. 2020, section 3.2.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the assigner."""

        epsilon: float = 0.05
        """Scores are divided by it (our choice: SwAV's; 0.004 is SeLa's 0.1 / 25)."""
        max_iterations: int = 100
        """Iterations after which it stops in any case (our choice)."""
        check_every: int = 10
        """Iterations between two looks at the change (SeLa: 10)."""
        tolerance: float = 0.01
        """Largest relative change of a sample's factor at which it stops (our choice)."""
        chunk_rows: int = 16384
        """Rows scored at once: 16384 x 3000 prototypes x 4 bytes = 197 MB."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            if not 0 < self.epsilon < math.inf:
                yield "epsilon", f"must be positive, got {self.epsilon}; SwAV uses 0.05"
            if self.tolerance < 0:
                yield "tolerance", f"must be 0 or more, got {self.tolerance}; the default is 0.01"
            yield from at_least(self, 1, "max_iterations", "check_every", "chunk_rows")

    def __init__(self, config: Config) -> None:
        self.config = config

    @torch.no_grad()
    def assign(
        self,
        features: Tensor,
        *,
        num_clusters: int,
        seed: int,
        prototypes: Tensor | None = None,
    ) -> OfflineCodes:
        """Balanced labels of the features [n, D] of all ranks; nothing random, `seed` is unused."""
        assert prototypes is not None, "the assignment is to the method's prototypes"
        assert len(prototypes) == num_clusters, f"{len(prototypes)} prototypes, not {num_clusters}"
        with without_autocast(features):
            kernel = _Kernel(
                at_least_float32(features),
                at_least_float32(prototypes),
                self.config.epsilon,
                self.config.chunk_rows,
            )
            labels, iterations, scalars = self._iterate(kernel)
        return OfflineCodes(labels, None, iterations, scalars)

    def _iterate(self, kernel: _Kernel) -> tuple[Tensor, int, dict[str, float]]:
        config, clusters = self.config, len(kernel.prototypes)
        g = kernel.features.new_zeros(len(kernel.features))  # [n]
        total = int(comm.all_reduce_sum(torch.tensor(len(g), device=g.device)))
        f = kernel.first_potential()  # [K]
        for iteration in range(1, config.max_iterations + 1):
            labels, row_sums, sums = kernel.rows(f)
            previous, g = g, -math.log(total) - row_sums
            last = iteration == config.max_iterations
            if last or iteration % config.check_every == 0:
                change = comm.all_reduce_max((previous - g).expm1().abs().max())
                if last or change <= config.tolerance:
                    break
            # The update of f, by the sums of the normalised rows; see assigners/sinkhorn.py for
            # its derivation and for why no sum can vanish.
            f = f + math.log(total / clusters) - sums.log()
        scalars = {
            "sinkhorn_iterations": float(iteration),
            "sinkhorn_change": float(change),
            "marginal_error": float((sums * clusters / total - 1).abs().max()),
        }
        return labels, iteration, scalars


class _Kernel:
    """exp(Z C^T / epsilon) in logarithms, a chunk of this rank's rows at a time."""

    def __init__(
        self, features: Tensor, prototypes: Tensor, epsilon: float, chunk_rows: int
    ) -> None:
        self.features, self.prototypes = features, prototypes
        self.epsilon, self.chunk_rows = epsilon, chunk_rows

    def _logits(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows and their logits [rows, K]."""
        for rows in row_chunks(len(self.features), self.chunk_rows):
            yield rows, self.features[rows] @ self.prototypes.t() / self.epsilon

    def first_potential(self) -> Tensor:
        """f [K] for g = 0, float64, of all ranks' rows."""
        clusters = len(self.prototypes)
        shift = self.features.new_full((clusters,), -math.inf)
        for _, logits in self._logits():
            shift = torch.maximum(shift, logits.amax(dim=0))
        comm.all_reduce_max(shift)
        sums = torch.zeros_like(shift, dtype=torch.float64)
        for _, logits in self._logits():
            sums += (logits - shift).exp().sum(dim=0)
        return -math.log(clusters) - shift - comm.all_reduce_sum(sums).log()

    def rows(self, f: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of logits + f: each row's argmax [n] and LSE [n]; all ranks' sums of softmaxes [K]."""
        count = len(self.features)
        labels = torch.empty(count, dtype=torch.int64, device=self.features.device)
        row_sums = self.features.new_empty(count)
        sums = torch.zeros_like(f)
        for rows, logits in self._logits():
            shifted = logits + f.to(logits.dtype)
            labels[rows] = shifted.argmax(dim=1)
            row_sums[rows] = shifted.logsumexp(dim=1)
            sums += (shifted - row_sums[rows].unsqueeze(1)).exp().sum(dim=0)
        return labels, row_sums, comm.all_reduce_sum(sums)
