"""Which parameters are decayed and adapted: the groups that every optimizer here starts from."""

from __future__ import annotations

from typing import Any

from torch import nn

from unlabeled.errors import ConfigError

NamedParameters = list[tuple[str, nn.Parameter]]


def is_bias_or_norm(name: str, parameter: nn.Parameter) -> bool:
    """Whether it is a bias or belongs to a normalisation layer: 1-D, or named `.bias`."""
    return parameter.ndim <= 1 or name.endswith(".bias")


def parameter_groups(
    named_parameters: NamedParameters, *, weight_decay: float, exclude_bias_and_norm: bool
) -> list[dict[str, Any]]:
    """Groups for a torch optimizer: the regular parameters first, the excluded ones second.

    Every group has `regular`: False for biases and normalisation layers when these are excluded;
    their `weight_decay` is then 0. Groups without parameters are left out.
    A model without parameters raises ConfigError.
    """
    if not named_parameters:
        raise ConfigError(
            "the model has no parameters to optimise; choose a backbone or head that learns"
        )
    regular: list[nn.Parameter] = []
    excluded: list[nn.Parameter] = []
    for name, parameter in named_parameters:
        apart = exclude_bias_and_norm and is_bias_or_norm(name, parameter)
        (excluded if apart else regular).append(parameter)
    groups = [
        {"params": regular, "weight_decay": weight_decay, "regular": True},
        {"params": excluded, "weight_decay": 0.0, "regular": False},
    ]
    return [group for group in groups if group["params"]]
