"""How many prototypes are alive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unlabeled.distributed import comm
from unlabeled.meters.base import Meter
from unlabeled.methods.base import Method, MethodOutput
from unlabeled.registry import register


@register("meter", "prototype_usage")
class PrototypeUsage(Meter):
    """Share of prototypes that won at least one row in the epoch.

    prototype_usage = |{argmax_k q_nk over all rows n}| / K; 1/K when every row has the same code.
    Codes [n, K]; the state is K booleans. Under DDP a prototype counts if it won on any rank.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """No fields."""

    def __init__(self, config: Config, *, method: Method) -> None:
        super().__init__(config, method=method)
        self._won: Tensor | None = None

    def update(self, output: MethodOutput) -> None:
        """Mark the winners; stays on the device."""
        if output.codes is None or not len(output.codes):
            return
        codes = output.codes.detach()  # [n, K]
        if self._won is None:
            self._won = torch.zeros(codes.shape[1], dtype=torch.bool, device=codes.device)
        self._won.index_fill_(0, codes.argmax(dim=1), True)

    def compute(self) -> dict[str, float]:
        """prototype_usage over all ranks."""
        num_prototypes = max(comm.all_gather_objects(0 if self._won is None else len(self._won)))
        if num_prototypes == 0:
            return {}
        if self._won is None:  # a rank without rows still takes part in the maximum
            won = torch.zeros(num_prototypes, device=self.device)
        else:
            won = self._won.float()  # a copy, so that computing twice gives the same
        return {"prototype_usage": float(comm.all_reduce_max(won).mean())}

    def reset(self) -> None:
        """Forget the winners."""
        self._won = None

    def state(self) -> dict[str, Any]:
        """The winners."""
        return {"won": self._won}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on marking."""
        self._won = None if state["won"] is None else state["won"].to(self.device)
