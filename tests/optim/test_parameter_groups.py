from __future__ import annotations

import pytest
import torch
from torch import nn

from unlabeled.errors import ConfigError
from unlabeled.optim.parameter_groups import is_bias_or_norm, parameter_groups


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def names_of(group: dict[str, object], named: list[tuple[str, nn.Parameter]]) -> set[str]:
    members = {id(p) for p in group["params"]}  # type: ignore[attr-defined]
    return {name for name, p in named if id(p) in members}


def test_biases_and_norms_form_a_group_without_decay() -> None:
    named = list(model().named_parameters())
    regular, excluded = parameter_groups(named, weight_decay=0.1, exclude_bias_and_norm=True)
    assert names_of(regular, named) == {"0.weight", "3.weight"}
    assert names_of(excluded, named) == {"0.bias", "1.weight", "1.bias", "3.bias"}
    assert (regular["weight_decay"], regular["regular"]) == (0.1, True)
    assert (excluded["weight_decay"], excluded["regular"]) == (0.0, False)


def test_without_exclusion_all_parameters_share_one_group_in_order() -> None:
    named = list(model().named_parameters())
    (group,) = parameter_groups(named, weight_decay=0.1, exclude_bias_and_norm=False)
    assert [id(p) for p in group["params"]] == [id(p) for _, p in named]
    assert (group["weight_decay"], group["regular"]) == (0.1, True)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("fc.weight", (2, 3), False),
        ("norm.weight", (3,), True),
        ("temperature", (), True),
        ("attention.relative.bias", (2, 3), True),
        ("cls_token", (1, 1, 8), False),  # decayed by DINO: 3-D
        ("bias_table", (2, 3), False),
    ],
)
def test_what_counts_as_bias_or_norm(name: str, shape: tuple[int, ...], expected: bool) -> None:
    assert is_bias_or_norm(name, nn.Parameter(torch.zeros(shape))) is expected


def test_a_model_without_parameters_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="no parameters"):
        parameter_groups([], weight_decay=0.0, exclude_bias_and_norm=False)
