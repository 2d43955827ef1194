"""AdamW, for vision transformers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from unlabeled.config.ranges import at_least, positive
from unlabeled.distributed.shards import is_sharded
from unlabeled.optim.parameter_groups import NamedParameters, parameter_groups
from unlabeled.registry import register


@register("optimizer", "adamw")
class AdamW(torch.optim.AdamW):
    """Adam with decoupled decay: p <- p - lr (m / (sqrt(v) + eps) + wd p), m and v bias-corrected.

    DDP: gradients are averaged before the step, so every rank computes the same update.
    Reference: Loshchilov and Hutter 2019, arXiv 1711.05101; torch.optim.AdamW.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the optimizer."""

        betas: tuple[float, float] = (0.9, 0.999)
        """Decay of the running means of the gradient and of its square."""
        eps: float = 1e-8
        """Added to the square root of the second moment."""
        weight_decay: float = 0.04
        """Decoupled penalty, times the learning rate (DINO starts at 0.04)."""
        exclude_bias_and_norm: bool = True
        """Do not decay 1-D parameters and biases (as DINO)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            if not all(0 <= beta < 1 for beta in self.betas):
                yield "betas", f"must lie in [0, 1), got {self.betas}; (0.9, 0.999) is usual"
            yield from positive(self, "eps")
            yield from at_least(self, 0, "weight_decay")

    def __init__(self, config: Config, *, named_parameters: NamedParameters) -> None:
        groups = parameter_groups(
            named_parameters,
            weight_decay=config.weight_decay,
            exclude_bias_and_norm=config.exclude_bias_and_norm,
        )
        # torch's multi-tensor steps do not take sharded and whole parameters together.
        one_by_one = False if any(is_sharded(p) for _, p in named_parameters) else None
        super().__init__(groups, lr=0.0, betas=config.betas, eps=config.eps, foreach=one_by_one)
