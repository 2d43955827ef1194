"""Whether the embeddings still fill their space: spread per dimension and effective rank."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from unlabeled.distributed import comm
from unlabeled.meters.base import Meter
from unlabeled.methods.base import Method, MethodOutput
from unlabeled.registry import register

# What RankMe adds to every p_k (its eq. 1).
RANK_ME_EPSILON = 1e-7


@register("meter", "feature_rank")
class FeatureRank(Meter):
    """Spread and effective rank of the newest embeddings of an epoch: what collapse shows in first.

    feature_std = mean_d std(z_d / ||z||); an isotropic distribution in D dimensions has 1/sqrt(D),
    constant features have 0. rank_me = exp(-sum_k p_k log p_k), p_k = sigma_k / sum sigma + 1e-7,
    over the singular values of the rows, neither centred nor normalised; from 1 to D.
    Rows [N, D] of any float type are kept as they are, at most `max_rows` over all ranks; sums are
    float64. Under DDP the ranks' rows count as one matrix. The singular values are the roots of the
    eigenvalues of its Gram matrix [D, D], so ranks exchange D^2 numbers instead of rows; in float64
    that resolves values down to 1e-8 of the largest, below the 1e-7 that p_k carries anyway.
    References: Chen & He, Exploring simple Siamese representation learning, section 4.1 (std);
    Garrido et al., RankMe, arXiv:2210.02885, equation 1.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of `configs/meter/feature_rank.yaml`."""

        max_rows: int = 2048
        """Newest embedding rows of the epoch that are measured, over all ranks."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            if self.max_rows < 2:
                yield "max_rows", f"must be 2 or more, a spread needs two rows; got {self.max_rows}"

    def __init__(self, config: Config, *, method: Method) -> None:
        super().__init__(config, method=method)
        self._rows_per_rank = max(1, config.max_rows // comm.world_size())
        self._newest: deque[Tensor] = deque()
        self._held = 0

    def update(self, output: MethodOutput) -> None:
        """Keep the newest rows of the rank; shapes decide what is dropped, so nothing waits."""
        if output.embeddings is None or not len(output.embeddings):
            return
        # A clone, because the rows may be a view of something large or be written over later.
        rows = output.embeddings.detach()[-self._rows_per_rank :].clone()  # [n, D]
        self._newest.append(rows)
        self._held += len(rows)
        while self._held - len(self._newest[0]) >= self._rows_per_rank:
            self._held -= len(self._newest.popleft())

    def compute(self) -> dict[str, float]:
        """feature_std and rank_me over the rows of all ranks."""
        dim = max(comm.all_gather_objects(self._newest[0].shape[1] if self._newest else 0))
        if dim == 0:
            return {}
        if self._newest:
            rows = self._rows().double()  # [n, D]
        else:  # a rank without rows still takes part in the sums
            rows = torch.zeros(0, dim, dtype=torch.float64, device=self.device)
        return {"feature_std": _mean_std(rows), "rank_me": _rank_me(rows)}

    def reset(self) -> None:
        """Forget the rows."""
        self._newest.clear()
        self._held = 0

    def state(self) -> dict[str, Any]:
        """The newest rows."""
        return {"rows": self._rows() if self._newest else None}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on behind these rows."""
        self.reset()
        if state["rows"] is not None:
            self._newest.append(state["rows"].to(self.device))
            self._held = len(state["rows"])

    def _rows(self) -> Tensor:
        return torch.cat(list(self._newest))[-self._rows_per_rank :]  # [n, D]


def _mean_std(rows: Tensor) -> float:
    """Mean over dimensions of the standard deviation of the normalised rows of all ranks."""
    unit = F.normalize(rows, dim=1)  # [n, D]
    count = comm.all_reduce_sum(unit.new_tensor(float(len(unit))))
    mean = comm.all_reduce_sum(unit.sum(dim=0)) / count  # [D]
    variance = comm.all_reduce_sum((unit - mean).square().sum(dim=0)) / count  # [D]
    return float(variance.sqrt().mean())


def _rank_me(rows: Tensor) -> float:
    """Effective rank of the rows of all ranks; 0 when every row is zero."""
    gram = comm.all_reduce_sum(rows.T @ rows)  # [D, D]
    sigma = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()  # [D]
    total = sigma.sum()
    if total == 0:
        return 0.0
    share = sigma / total + RANK_ME_EPSILON
    return float(torch.exp(-(share * share.log()).sum()))
