"""A Linear whose rows are directions with a length of their own."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlabeled.models.heads.mlp import unit_rows


class WeightNormLinear(nn.Module):
    """y_k = g_k <x, v_k / |v_k|>: [N, in_dim] -> [N, out_dim], in the type of x and no lower one.

    weight_g [out_dim, 1] starts as 1 and is learned only if `learn_lengths`; weight_v
    [out_dim, in_dim] starts as torch.nn.Linear's weight. Of a zero v_k the output is 0.
    The names are those of torch's weight_norm, and so of official DINO weights.
    Reference: Salimans and Kingma 2016.
    """

    def __init__(self, in_dim: int, out_dim: int, *, learn_lengths: bool) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(out_dim, 1), requires_grad=learn_lengths)
        self.weight_v = nn.Parameter(torch.empty(out_dim, in_dim))
        nn.init.kaiming_uniform_(self.weight_v, a=math.sqrt(5))

    def forward(self, rows: Tensor) -> Tensor:
        """The outputs of rows [N, in_dim]."""
        with torch.autocast(device_type=rows.device.type, enabled=False):
            weight = self.weight_g.to(rows.dtype) * unit_rows(self.weight_v).to(rows.dtype)
            return F.linear(rows, weight)
