"""Whether codes are sharp and spread: the two entropies that tell collapse from clustering."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unlabeled.distributed import comm
from unlabeled.meters.base import Meter
from unlabeled.methods.base import Method, MethodOutput
from unlabeled.registry import register


@register("meter", "code_entropy")
class CodeEntropy(Meter):
    """Mean entropy of the codes, and entropy of the mean code, as shares of ln K.

    code_entropy = mean_n H(q_n) / ln K: 0 for hard codes, 1 for codes that say nothing.
    code_marginal_entropy = H(mean_n q_n) / ln K: 1 for prototypes used evenly, 0 if one takes all.
    Codes [n, K], rows renormalised to sum to 1 because half precision rounds them; with K = 1 both
    are 0. The state is K + 1 sums in float64. Under DDP the means run over the rows of all ranks.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """No fields."""

    def __init__(self, config: Config, *, method: Method) -> None:
        super().__init__(config, method=method)
        self._sums: Tensor | None = None
        self._rows = 0

    def update(self, output: MethodOutput) -> None:
        """Add the rows' entropies and the rows themselves; stays on the device."""
        if output.codes is None or not len(output.codes):
            return
        codes = output.codes.detach().double()  # [n, K]
        codes = codes / codes.sum(dim=1, keepdim=True).clamp_min(torch.finfo(codes.dtype).tiny)
        # [K + 1]: the sum of the codes and, last, the sum of their entropies.
        sums = torch.cat([codes.sum(dim=0), _entropy(codes).sum().unsqueeze(0)])
        self._sums = sums if self._sums is None else self._sums + sums
        self._rows += len(codes)

    def compute(self) -> dict[str, float]:
        """code_entropy and code_marginal_entropy over the rows of all ranks."""
        seen = comm.all_gather_objects((self._rows, 0 if self._sums is None else len(self._sums)))
        rows, width = sum(count for count, _ in seen), max(width for _, width in seen)
        if rows == 0:
            return {}
        if self._sums is None:  # a rank without rows still takes part in the sum
            sums = torch.zeros(width, dtype=torch.float64, device=self.device)
        else:
            sums = self._sums.clone()  # a copy, so that computing twice gives the same
        means = comm.all_reduce_sum(sums) / rows  # [K + 1]
        scale = math.log(width - 1) or 1.0
        return {
            "code_entropy": float(means[-1]) / scale,
            "code_marginal_entropy": float(_entropy(means[:-1])) / scale,
        }

    def reset(self) -> None:
        """Forget the sums."""
        self._sums = None
        self._rows = 0

    def state(self) -> dict[str, Any]:
        """The sums, and of how many rows they are."""
        return {"sums": self._sums, "rows": self._rows}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on adding."""
        self._sums = None if state["sums"] is None else state["sums"].to(self.device)
        self._rows = state["rows"]


def _entropy(probabilities: Tensor) -> Tensor:
    """-sum p ln p over the last dimension, with 0 ln 0 = 0."""
    return -torch.xlogy(probabilities, probabilities).sum(dim=-1)
