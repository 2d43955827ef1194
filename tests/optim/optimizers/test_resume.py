"""An optimizer restored from its state goes on as if it had never been away."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn

from unlabeled.registry import get

NAMES = ["larc", "lars", "sgd", "adamw"]


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3, bias=False))


def built(name: str, net: nn.Module) -> torch.optim.Optimizer:
    cls = get("optimizer", name)
    optimizer = cls(cls.Config(weight_decay=0.01), named_parameters=list(net.named_parameters()))
    assert isinstance(optimizer, torch.optim.Optimizer)
    return optimizer


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for t in steps:
        inputs = torch.randn(8, 5, generator=torch.Generator().manual_seed(t))
        optimizer.zero_grad()
        net(inputs).square().sum().backward()
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (t + 1)
        optimizer.step()


@pytest.mark.parametrize("name", NAMES)
def test_a_restored_optimizer_continues_bit_for_bit(name: str) -> None:
    whole = model()
    stopped = copy.deepcopy(whole)
    train(whole, built(name, whole), range(6))

    first = built(name, stopped)
    train(stopped, first, range(3))
    file = io.BytesIO()
    torch.save({"model": stopped.state_dict(), "optimizer": first.state_dict()}, file)
    file.seek(0)
    saved: dict[str, Any] = torch.load(file, weights_only=True)
    resumed = model()
    resumed.load_state_dict(saved["model"])
    second = built(name, resumed)
    second.load_state_dict(saved["optimizer"])
    train(resumed, second, range(3, 6))

    for expected, actual in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(expected, actual)


@pytest.mark.parametrize("name", NAMES)
def test_momentum_is_part_of_the_state(name: str) -> None:
    whole = model()
    forgetful = copy.deepcopy(whole)
    train(whole, built(name, whole), range(6))
    train(forgetful, built(name, forgetful), range(3))
    train(forgetful, built(name, forgetful), range(3, 6))
    assert not torch.equal(next(whole.parameters()), next(forgetful.parameters()))
