"""A model built in pieces is the model, bit for bit, and its large parameters take no memory."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import nn

from unlabeled.distributed.pieces import NotInPieces, building_pieces
from unlabeled.registry import get

HEADS = [
    pytest.param(("projection", {"batch_norm": "all"}), id="projection"),
    pytest.param(("prototypes", {"num_prototypes": [7, 11]}), id="prototypes"),
    pytest.param(("linear", {}), id="linear"),
    pytest.param(
        ("hierarchical_classifier", {"super_clusters": 2, "sub_clusters": 3}), id="hierarchical"
    ),
]
BACKBONES = [
    pytest.param(("resnet", {"depth": 18, "width": 0.25, "stem": "small"}), id="resnet"),
    pytest.param(("resnext", {"depth": 50, "groups": 4, "width_per_group": 4}), id="resnext"),
    pytest.param(("regnet", {"depth": 3, "w0": 16, "wa": 20.0, "group_width": 8}), id="regnet"),
]


def built(part: tuple[str, dict[str, object]], kind: str) -> nn.Module:
    cls = get(kind, part[0])
    sizes = {"feature_dim": 12, "num_classes": 5} if kind == "head" else {}
    module: nn.Module = cls(cls.Config(**part[1]), **sizes)
    return module


def assert_same(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(3)
    whole, after = build(), torch.rand(3)
    torch.manual_seed(3)
    with building_pieces() as pieces:
        made = build()
    assert torch.equal(torch.rand(3), after)  # as many random numbers were drawn
    expected = dict(whole.named_parameters())
    assert list(dict(made.named_parameters())) == list(expected)
    released = pieces.release(made)
    for name, parameter in made.named_parameters():
        assert parameter.is_meta == (parameter.ndim > 1) == (name in released), name
        assert torch.equal(released.get(name, parameter), expected[name]), name
        assert type(parameter) is nn.Parameter
        assert parameter.requires_grad == expected[name].requires_grad, name
    for name, buffer in made.named_buffers():
        assert torch.equal(buffer, whole.get_buffer(name)), name


@pytest.mark.parametrize("part", HEADS)
def test_heads_are_the_same(part: tuple[str, dict[str, object]]) -> None:
    assert_same(lambda: built(part, "head"))


@pytest.mark.parametrize("part", BACKBONES)
def test_backbones_are_the_same(part: tuple[str, dict[str, object]]) -> None:
    assert_same(lambda: built(part, "backbone"))


def test_truncated_normal_numbers_are_the_same() -> None:
    def build() -> nn.Module:
        layer = nn.Linear(4, 6)
        nn.init.trunc_normal_(layer.weight, std=0.02)
        layer.weight.data.mul_(2.0)
        return layer

    assert_same(build)


def test_values_that_a_parameter_is_made_of_are_kept() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.arange(12.0).view(4, 3))

    assert_same(Positions)


def test_views_and_products_of_a_parameter_are_possible_while_it_is_made() -> None:
    def build() -> nn.Module:
        layer = nn.Linear(4, 6)
        nn.init.orthogonal_(layer.weight)
        with torch.no_grad():
            layer.weight[2:4].zero_()
            layer.weight.copy_(layer.weight @ torch.rand(4, 4))
        return layer

    assert_same(build)


def test_a_parameter_may_be_tied() -> None:
    def build() -> nn.Module:
        layers = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        layers[1].weight = layers[0].weight
        return layers

    assert_same(build)
    with building_pieces() as pieces:
        layers = build()
    pieces.release(layers)
    assert layers.get_parameter("1.weight") is layers.get_parameter("0.weight")


def test_a_copy_of_a_module_is_built_in_pieces_too() -> None:
    def build() -> nn.Module:
        student = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
        teacher = deepcopy(student).requires_grad_(False)
        nn.init.normal_(student[0].weight)  # which the copy is not made of
        return nn.ModuleList([student, teacher])

    assert_same(build)


@pytest.mark.parametrize(
    "change",
    [nn.init.orthogonal_, lambda w: w[0].zero_(), lambda w: w.copy_(torch.ones(4, 4)), torch.sum],
)
def test_what_comes_back_to_a_whole_parameter_is_refused(
    change: Callable[[nn.Parameter], None],
) -> None:
    with building_pieces(), torch.no_grad():
        layer = nn.Linear(4, 4)
        nn.Linear(4, 4)
        with pytest.raises(NotInPieces):
            change(layer.weight)


def test_one_parameter_is_whole_at_a_time() -> None:
    with building_pieces() as pieces:
        nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    assert [pieces.whole(number) is None for number in range(3)] == [True, True, False]


def test_outside_of_the_context_modules_are_built_as_ever() -> None:
    with building_pieces():
        pass
    assert not nn.Linear(3, 2).weight.is_meta
