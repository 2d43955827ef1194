"""Plain SGD, as linear probes, fine-tuning and MoCo use it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unlabeled.config.ranges import at_least
from unlabeled.distributed.shards import is_sharded
from unlabeled.errors import ConfigError
from unlabeled.optim.parameter_groups import NamedParameters, parameter_groups
from unlabeled.registry import register


@register("optimizer", "sgd")
class SGD(torch.optim.SGD):
    """Stochastic gradient descent with momentum: m <- momentum m + g + wd p; p <- p - lr m.

    DDP: gradients are averaged before the step, so every rank computes the same update.
    Reference: torch.optim.SGD.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the optimizer."""

        momentum: float = 0.9
        """Share of the previous update that is kept."""
        weight_decay: float = 1e-4
        """L2 penalty added to the gradient (MoCo: 1e-4; SwAV's linear probe: 1e-6)."""
        nesterov: bool = False
        """Look-ahead momentum."""
        exclude_bias_and_norm: bool = False
        """Do not decay 1-D parameters and biases."""
        without_momentum: tuple[str, ...] = ()
        """What the names of parameters begin with that get plain steps (DeepCluster's classifier,
        which is new in every epoch: head.classifier)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            if not 0 <= self.momentum < 1:
                yield "momentum", f"must lie in [0, 1), got {self.momentum}; 0.9 is usual"
            yield from at_least(self, 0, "weight_decay")
            if self.nesterov and self.momentum == 0:
                yield "nesterov", "needs momentum > 0, got momentum 0; set nesterov=false"

    def __init__(self, config: Config, *, named_parameters: NamedParameters) -> None:
        groups = parameter_groups(
            named_parameters,
            weight_decay=config.weight_decay,
            exclude_bias_and_norm=config.exclude_bias_and_norm,
        )
        plain = _beginning(config.without_momentum, named_parameters)
        # torch's multi-tensor steps do not take sharded and whole parameters together.
        one_by_one = False if any(is_sharded(p) for _, p in named_parameters) else None
        groups = [part for group in groups for part in _divided(group, plain, config.momentum)]
        super().__init__(
            groups, lr=0.0, momentum=config.momentum, nesterov=config.nesterov, foreach=one_by_one
        )


def _beginning(starts: Sequence[str], named_parameters: NamedParameters) -> set[nn.Parameter]:
    """The parameters whose names begin so; ConfigError for a beginning that no name has."""
    for start in starts:
        if not any(name.startswith(start) for name, _ in named_parameters):
            tops = sorted(
                {name.rsplit(".", 1)[0] for name, _ in named_parameters if "head" in name}
            )
            raise ConfigError(
                f"optimizer.without_momentum: no trained parameter begins with {start!r}; in the "
                f"head there are {', '.join(tops) or 'none'}"
            )
    return {parameter for name, parameter in named_parameters if name.startswith(tuple(starts))}


def _divided(
    group: dict[str, Any], plain: set[nn.Parameter], momentum: float
) -> Iterator[dict[str, Any]]:
    """A group of parameters as one with momentum and one without; empty ones are left out."""
    kept = [p for p in group["params"] if p not in plain]
    others = [p for p in group["params"] if p in plain]
    for parameters, share in ((kept, momentum), (others, 0.0)):
        if parameters:
            yield {**group, "params": parameters, "momentum": share}
