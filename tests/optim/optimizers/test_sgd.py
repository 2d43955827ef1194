from __future__ import annotations

import pytest
import torch
from torch import nn

from unlabeled.config.check import build_config
from unlabeled.errors import ConfigError
from unlabeled.optim.optimizers.sgd import SGD


@pytest.mark.parametrize("nesterov", [False, True])
def test_follows_the_recursion_with_decay_on_weights_alone(nesterov: bool) -> None:
    weight, bias = (nn.Parameter(torch.randn(s, dtype=torch.float64)) for s in [(3, 2), (3,)])
    config = SGD.Config(
        momentum=0.8, weight_decay=0.1, nesterov=nesterov, exclude_bias_and_norm=True
    )
    optimizer = SGD(config, named_parameters=[("weight", weight), ("bias", bias)])
    expected = [weight.detach().clone(), bias.detach().clone()]
    velocity = [torch.zeros_like(p) for p in expected]
    for lr in (0.5, 0.2, 0.1):
        weight.grad, bias.grad = torch.randn_like(weight), torch.randn_like(bias)
        for i, (p, grad, decay) in enumerate(
            [(expected[0], weight.grad, 0.1), (expected[1], bias.grad, 0.0)]
        ):
            direction = grad + decay * p
            velocity[i] = 0.8 * velocity[i] + direction
            expected[i] = p - lr * (direction + 0.8 * velocity[i] if nesterov else velocity[i])
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
    torch.testing.assert_close([weight.detach(), bias.detach()], expected)


@pytest.mark.parametrize("exclude", [False, True])
def test_some_parameters_may_have_plain_steps(exclude: bool) -> None:
    """Weight decay stays what it would be; only the past of the named ones counts for nothing."""
    names = ["backbone.weight", "backbone.bias", "head.classifier.weight", "head.classifier.bias"]
    named = [
        (name, nn.Parameter(torch.ones(2) if "bias" in name else torch.ones(2, 2)))
        for name in names
    ]
    config = SGD.Config(
        momentum=0.8,
        weight_decay=0.1,
        exclude_bias_and_norm=exclude,
        without_momentum=("head.classifier",),
    )
    optimizer = SGD(config, named_parameters=named)
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    expected = {name: [torch.ones_like(p), torch.zeros_like(p)] for name, p in named}
    for _ in range(3):
        for name, parameter in named:
            parameter.grad = torch.randn_like(parameter)
            value, velocity = expected[name]
            decay = 0.0 if exclude and name.endswith("bias") else 0.1
            direction = parameter.grad + decay * value
            velocity = (0.0 if name.startswith("head") else 0.8) * velocity + direction
            expected[name] = [value - 0.5 * velocity, velocity]
        optimizer.step()
    for name, parameter in named:
        torch.testing.assert_close(parameter.detach(), expected[name][0])


def test_a_beginning_that_no_name_has_is_a_config_error() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    config = SGD.Config(without_momentum=("head.clasifier",))
    with pytest.raises(ConfigError, match=r"begins with 'head\.clasifier'.*are head\.classifier"):
        SGD(config, named_parameters=[("head.classifier.weight", weight)])


def test_the_initial_rate_is_zero() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.ones(2, 2)
    SGD(SGD.Config(), named_parameters=[("weight", weight)]).step()
    assert torch.equal(weight, torch.ones(2, 2))


def test_nesterov_without_momentum_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="nesterov: needs momentum"):
        build_config(SGD.Config, {"nesterov": True, "momentum": 0.0})
