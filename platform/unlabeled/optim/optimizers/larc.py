"""LARC: layer-wise adaptive rates on top of SGD, the optimizer of SwAV."""

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


@register("optimizer", "larc")
class LARC(LayerwiseSGD):
    """Momentum SGD whose every tensor moves in proportion to its own norm.

    a = trust |p| / (|g| + wd |p| + eps), with `clip` min(a / lr, 1); u = a (g + wd p), then
    momentum SGD on u without further decay. A parameter or gradient of norm zero gives u = g:
    neither adaptation nor decay (biases start that way).
    Biases and normalisation layers are adapted and decayed like the rest, as in the official runs,
    unless `exclude_bias_and_norm`.
    DDP: gradients are averaged before the step, so every rank computes the same update.
    Reference: You et al. 2017, arXiv 1708.03888; NVIDIA apex, parallel/LARC.py; Caron et al. 2020,
    appendix A.1.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the optimizer."""

        momentum: float = 0.9
        """Share of the previous update that is kept (SwAV: 0.9)."""
        weight_decay: float = 1e-6
        """L2 penalty, inside the adaptation (SwAV, appendix A.1: 1e-6)."""
        trust_coefficient: float = 0.001
        """Relative size of an update at rate 1 (SwAV's scripts: 0.001)."""
        clip: bool = False
        """Never exceed the scheduled rate: a <- min(a / lr, 1). The official runs scale instead."""
        eps: float = 1e-8
        """Added to the denominator (apex: 1e-8)."""
        nesterov: bool = False
        """Look-ahead momentum."""
        exclude_bias_and_norm: bool = False
        """Neither adapt nor decay 1-D parameters and biases (the official runs do both)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            if not 0 <= self.momentum < 1:
                yield "momentum", f"must lie in [0, 1), got {self.momentum}; SwAV uses 0.9"
            yield from at_least(self, 0, "weight_decay", "eps")
            yield from positive(self, "trust_coefficient")
            if self.nesterov and self.momentum == 0:
                yield "nesterov", "needs momentum > 0, got momentum 0; set nesterov=false"

    def __init__(self, config: Config, *, named_parameters: NamedParameters) -> None:
        groups = parameter_groups(
            named_parameters,
            weight_decay=config.weight_decay,
            exclude_bias_and_norm=config.exclude_bias_and_norm,
        )
        self.trust_coefficient = config.trust_coefficient
        self.eps = config.eps
        self.clip = config.clip
        defaults = {"lr": 0.0, "momentum": config.momentum, "nesterov": config.nesterov}
        super().__init__(groups, defaults)

    def adapt(
        self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any], norms: Norms
    ) -> list[Tensor]:
        if not group["regular"]:
            return grads
        decay = group["weight_decay"]
        param_norms, grad_norms = norms(params), norms(grads)  # [P] each
        rates = self.trust_coefficient * param_norms / (grad_norms + decay * param_norms + self.eps)
        if self.clip:
            rates = (rates / group["lr"]).clamp(max=1.0)
        adapted = (param_norms != 0) & (grad_norms != 0)  # [P]
        decays = torch.where(adapted, decay, torch.zeros_like(rates))
        rates = torch.where(adapted, rates, torch.ones_like(rates))
        updates = scaled(params, decays)
        torch._foreach_add_(updates, grads)
        return scaled(updates, rates)
