"""A linear layer that a group of ranks holds together is the layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests_support.ranks import run_ranks
from unlabeled.distributed import comm
from unlabeled.distributed.row_groups import group_linear

ROWS, DIM, OUTPUTS = 3, 5, 4


def numbers(rank: int) -> tuple[Tensor, Tensor]:
    """What a rank gives to the layer of its group, and the gradient of what it gets."""
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(ROWS, DIM, generator=generator), torch.randn(
        ROWS, OUTPUTS, generator=generator
    )


def layer(group: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 + group)
    return torch.randn(OUTPUTS, DIM, generator=generator), torch.randn(OUTPUTS, generator=generator)


def computed(size: int, dtype: torch.dtype) -> list[Tensor]:
    """Scores and the gradients of inputs, own weights and own biases."""
    number, place = divmod(comm.rank(), size)
    own = slice(place * OUTPUTS // size, (place + 1) * OUTPUTS // size)
    inputs, gradient = (each.to(dtype) for each in numbers(comm.rank()))
    leaves = [inputs, *(whole[own].to(dtype) for whole in layer(number))]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    scores = group_linear(*leaves, comm.own_group(size))  # type: ignore[call-arg, arg-type]
    return [scores.detach(), *torch.autograd.grad(scores, leaves, gradient)]


def expected(rank: int, size: int) -> list[Tensor]:
    """The same of the group's rows together, by one layer."""
    number, place = divmod(rank, size)
    weight, bias = layer(number)
    own = slice(place * OUTPUTS // size, (place + 1) * OUTPUTS // size)
    members = [numbers(other) for other in range(number * size, (number + 1) * size)]
    inputs, gradient = members[place]
    return [
        functional.linear(inputs, weight, bias),
        gradient @ weight,
        sum(g.T @ x for x, g in members)[own],  # type: ignore[index]
        sum(g.sum(dim=0) for _, g in members)[own],  # type: ignore[index]
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "size"), [(2, 2), (4, 2)])
def test_scores_and_gradients_are_those_of_the_whole_layer(ranks: int, size: int) -> None:
    for rank, found in enumerate(run_ranks(computed, ranks, size, torch.float32)):
        for ours, theirs in zip(found, expected(rank, size), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.slow
def test_half_precision_travels_too() -> None:
    for rank, found in enumerate(run_ranks(computed, 2, 2, torch.bfloat16)):
        for ours, theirs in zip(found, expected(rank, 2), strict=True):
            torch.testing.assert_close(ours.float(), theirs, rtol=0.03, atol=0.1)
