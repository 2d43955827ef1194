from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from unlabeled.optim.optimizers.lars import LARS

DATA = Path(__file__).resolve().parents[2] / "data"


@pytest.mark.parametrize("decay", ["0", "1e-06", "0.01"])
def test_equals_the_official_optimizer(decay: str) -> None:
    golden = np.load(DATA / "dino_misc.npz")
    params = [nn.Parameter(torch.from_numpy(golden[f"lars_p{i}_init"].copy())) for i in range(6)]
    optimizer = LARS(
        LARS.Config(weight_decay=float(decay)),
        named_parameters=[(f"p{i}.weight", p) for i, p in enumerate(params)],
    )
    for t, lr in enumerate(golden["lars_lrs"]):
        for i, p in enumerate(params):
            p.grad = torch.from_numpy(golden[f"lars_g{i}_step{t}"].copy())
        for group in optimizer.param_groups:
            group["lr"] = float(lr)
        optimizer.step()
        for i, p in enumerate(params):
            expected = golden[f"lars_wd{decay}_p{i}_after{t}"]
            np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_without_exclusion_a_bias_is_adapted_too() -> None:
    bias = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    bias.grad = torch.tensor([0.0, 7.0], dtype=torch.float64)
    config = LARS.Config(weight_decay=0.0, trust_coefficient=0.1, exclude_bias_and_norm=False)
    optimizer = LARS(config, named_parameters=[("fc.bias", bias)])
    optimizer.param_groups[0]["lr"] = 2.0
    optimizer.step()
    # 0.1 x |(3, 4)| = 0.5 along the gradient, times the rate 2.
    torch.testing.assert_close(bias.detach(), torch.tensor([3.0, 3.0], dtype=torch.float64))
