from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from unlabeled.config.check import build_config
from unlabeled.errors import ConfigError
from unlabeled.optim.optimizers.larc import LARC

DATA = Path(__file__).resolve().parents[2] / "data"


def larc(named: list[tuple[str, nn.Parameter]], **fields: object) -> LARC:
    return LARC(build_config(LARC.Config, fields), named_parameters=named)


def step(optimizer: LARC, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()


@pytest.mark.parametrize(
    ("clip", "decay", "momentum", "nesterov"),
    [
        (clip, decay, momentum, nesterov)
        for clip, decay, (momentum, nesterov) in itertools.product(
            [0, 1], ["1e-06", "0.01"], [("0.9", 0), ("0", 0), ("0.9", 1)]
        )
    ],
)
def test_equals_apex_for_ordinary_zero_missing_tiny_and_huge_tensors(
    clip: int, decay: str, momentum: str, nesterov: int
) -> None:
    golden = np.load(DATA / "larc.npz")
    params = [nn.Parameter(torch.from_numpy(golden[f"p{i}_init"].copy())) for i in range(7)]
    optimizer = larc(
        [(f"p{i}.weight", p) for i, p in enumerate(params)],
        clip=bool(clip),
        weight_decay=float(decay),
        momentum=float(momentum),
        nesterov=bool(nesterov),
        trust_coefficient=float(golden["set_trust"]),
        eps=float(golden["set_eps"]),
    )
    tag = f"clip{clip}_wd{decay}_mom{momentum}_nest{nesterov}"
    for t, lr in enumerate(golden["set_lrs"]):
        for i, p in enumerate(params):
            p.grad = torch.from_numpy(golden[f"g{i}_step{t}"].copy())
        params[4].grad = None  # the official run never gives this one a gradient
        step(optimizer, float(lr))
        for i, p in enumerate(params):
            expected = golden[f"{tag}_p{i}_after{t}"]
            np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_follows_the_official_swav_run() -> None:
    golden = np.load(DATA / "swav_train_noqueue_w1.npz")
    tensors = {name: golden[f"{name}0"] for name in ("W", "b", "C")}
    params = {name: nn.Parameter(torch.from_numpy(a.copy())) for name, a in tensors.items()}
    optimizer = larc(
        list(params.items()),
        weight_decay=float(golden["set_wd"]),
        momentum=float(golden["set_momentum"]),
        trust_coefficient=float(golden["set_trust"]),
    )
    for t, lr in enumerate(golden["lr"]):
        # The official step starts from the prototypes that were normalised for its forward pass.
        params["C"].data.copy_(torch.from_numpy(golden["C_norm"][t]))
        for name, p in params.items():
            p.grad = torch.from_numpy(golden[f"grad{name}_step"][t].copy())
        if golden["gradC_is_none"][t]:
            params["C"].grad = None
        step(optimizer, float(lr))
        for name, p in params.items():
            np.testing.assert_allclose(
                p.detach().numpy(), golden[f"{name}_after"][t], rtol=1e-5, atol=1e-6
            )
    assert golden["gradC_is_none"].any() and not golden["gradC_is_none"].all()


def test_excluded_parameters_take_a_plain_momentum_step() -> None:
    weight, bias = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(4))
    plain = nn.Parameter(bias.detach().clone())
    optimizer = larc(
        [("fc.weight", weight), ("fc.bias", bias)], exclude_bias_and_norm=True, weight_decay=0.1
    )
    reference = torch.optim.SGD([plain], lr=0.5, momentum=0.9)
    for _ in range(3):
        weight.grad, bias.grad = torch.randn(4, 3), torch.randn(4)
        plain.grad = bias.grad.clone()
        reference.step()
        step(optimizer, 0.5)
    assert torch.equal(bias, plain)


def test_the_first_move_has_trust_times_the_norm_of_the_tensor() -> None:
    weight = nn.Parameter(torch.randn(30, 20, dtype=torch.float64))
    weight.grad = torch.randn(30, 20, dtype=torch.float64)
    before = weight.detach().clone()
    step(larc([("w", weight)], weight_decay=0.0, eps=0.0, trust_coefficient=0.02), 0.5)
    moved = (weight.detach() - before).norm() / before.norm()
    torch.testing.assert_close(moved.item(), 0.5 * 0.02)


def test_clipping_at_rate_zero_leaves_the_parameters() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.ones(2, 2)
    step(larc([("w", weight)], clip=True), 0.0)
    assert torch.equal(weight, torch.ones(2, 2))


def test_impossible_fields_are_all_reported() -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(
            LARC.Config,
            {"momentum": 0.0, "nesterov": True, "weight_decay": -1.0, "trust_coefficient": 0.0},
        )
    starts = [problem.split(":")[0] for problem in caught.value.problems]
    assert starts == ["weight_decay", "trust_coefficient", "nesterov"]
