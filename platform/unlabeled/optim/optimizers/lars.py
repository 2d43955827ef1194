"""LARS as DINO and Barlow Twins train ResNets with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unlabeled.config.ranges import at_least, positive
from unlabeled.optim.layerwise import LayerwiseSGD, Norms, scaled
from unlabeled.optim.parameter_groups import NamedParameters, parameter_groups
from unlabeled.registry import register


@register("optimizer", "lars")
class LARS(LayerwiseSGD):
    """Momentum SGD whose update of a tensor has trust times the tensor's norm.

    d = g + wd p; u = d trust |p| / |d| (u = d where either norm is zero); momentum SGD on u.
    Unlike LARC, the norm in the denominator is that of the decayed gradient, and there is no eps.
    1-D parameters and biases get neither decay nor adaptation unless `exclude_bias_and_norm` is
    off.
    DDP: gradients are averaged before the step, so every rank computes the same update.
    Reference: You et al. 2017, arXiv 1708.03888; the `LARS` of DINO's and Barlow Twins' code.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the optimizer."""

        momentum: float = 0.9
        """Share of the previous update that is kept."""
        weight_decay: float = 1e-6
        """L2 penalty, inside the adaptation (Barlow Twins: 1e-6)."""
        trust_coefficient: float = 0.001
        """Relative size of an update at rate 1."""
        exclude_bias_and_norm: bool = True
        """Neither adapt nor decay 1-D parameters and biases."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            if not 0 <= self.momentum < 1:
                yield "momentum", f"must lie in [0, 1), got {self.momentum}; 0.9 is usual"
            yield from at_least(self, 0, "weight_decay")
            yield from positive(self, "trust_coefficient")

    def __init__(self, config: Config, *, named_parameters: NamedParameters) -> None:
        groups = parameter_groups(
            named_parameters,
            weight_decay=config.weight_decay,
            exclude_bias_and_norm=config.exclude_bias_and_norm,
        )
        self.trust_coefficient = config.trust_coefficient
        defaults = {"lr": 0.0, "momentum": config.momentum, "nesterov": False}
        super().__init__(groups, defaults)

    def adapt(
        self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any], norms: Norms
    ) -> list[Tensor]:
        if not group["regular"]:
            return grads
        decayed = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
        param_norms, update_norms = norms(params), norms(decayed)  # [P] each
        rates = self.trust_coefficient * param_norms / update_norms
        adapted = (param_norms != 0) & (update_norms != 0)  # [P]
        return scaled(decayed, torch.where(adapted, rates, torch.ones_like(rates)))
