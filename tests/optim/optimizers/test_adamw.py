from __future__ import annotations

import pytest
import torch
from torch import nn

from unlabeled.config.check import build_config
from unlabeled.errors import ConfigError
from unlabeled.optim.optimizers.adamw import AdamW


def test_follows_the_equations_with_decay_on_weights_alone() -> None:
    weight, bias = (nn.Parameter(torch.randn(s, dtype=torch.float64)) for s in [(3, 2), (3,)])
    config = AdamW.Config(betas=(0.8, 0.95), eps=1e-3, weight_decay=0.3)
    optimizer = AdamW(config, named_parameters=[("weight", weight), ("bias", bias)])
    for p, decay in ((weight, 0.3), (bias, 0.0)):
        expected = p.detach().clone()
        first, second = torch.zeros_like(expected), torch.zeros_like(expected)
        for t, lr in enumerate((0.5, 0.2, 0.1), start=1):
            weight.grad = bias.grad = None
            p.grad = torch.randn_like(p)
            first = 0.8 * first + 0.2 * p.grad
            second = 0.95 * second + 0.05 * p.grad**2
            ratio = (first / (1 - 0.8**t)) / ((second / (1 - 0.95**t)).sqrt() + 1e-3)
            expected = expected - lr * (ratio + decay * expected)
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
        torch.testing.assert_close(p.detach(), expected)


def test_impossible_betas_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match="betas: must lie in"):
        build_config(AdamW.Config, {"betas": [0.9, 1.0]})
