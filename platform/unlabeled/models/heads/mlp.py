"""The multi-layer perceptron between backbone and loss, and the unit sphere behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BatchNorm = Literal["none", "hidden", "all"]
RELU: Callable[[], nn.Module] = partial(nn.ReLU, inplace=True)


def mlp(
    in_dim: int,
    hidden_dim: int,
    num_hidden_layers: int,
    out_dim: int,
    batch_norm: BatchNorm,
    activation: Callable[[], nn.Module] = RELU,
) -> nn.Sequential:
    """Linear layers with an activation between them; without hidden layers, a single Linear.

    batch_norm: nowhere, after each hidden Linear (before its activation), or after the last one as
    well.
    Parameters start as torch's defaults, which are the official ones: Linear uniform within
    +-1/sqrt(fan-in), biases too; BN weight 1, bias 0. Every Linear has a bias.
    """
    widths = [in_dim, *[hidden_dim] * num_hidden_layers, out_dim]
    layers: list[nn.Module] = []
    for depth, (fan_in, fan_out) in enumerate(pairwise(widths)):
        hidden = depth < num_hidden_layers
        layers.append(nn.Linear(fan_in, fan_out))
        if batch_norm == "all" or (batch_norm == "hidden" and hidden):
            layers.append(nn.BatchNorm1d(fan_out))
        if hidden:
            layers.append(activation())
    return nn.Sequential(*layers)


def unit_rows(rows: Tensor) -> Tensor:
    """The rows [N, D] divided by their L2 norm, in float32 or better; a zero row stays zero."""
    with torch.autocast(device_type=rows.device.type, enabled=False):
        return F.normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)), dim=1)


def dimension_problems(
    hidden_dim: int, num_hidden_layers: int, output_dim: int
) -> Iterator[tuple[str, str]]:
    """Faults of the sizes of an MLP, by field."""
    if hidden_dim < 1:
        yield "hidden_dim", f"must be at least 1, got {hidden_dim}; num_hidden_layers=0 drops it"
    if num_hidden_layers < 0:
        yield "num_hidden_layers", f"must be 0 (a single Linear) or more, got {num_hidden_layers}"
    if output_dim < 1:
        yield "output_dim", f"must be at least 1, got {output_dim}"
