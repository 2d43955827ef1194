"""Bytes and operations, by hand."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from unlabeled.planning.live_storages import LiveStorages

MEGA = 250_000
"""Numbers of float32 in 10^6 bytes."""


def test_the_peak_is_of_what_lives_at_once() -> None:
    with LiveStorages() as storages:
        one = torch.zeros(MEGA)
        other = one + 1
        assert (storages.live, storages.peak) == (2_000_000, 2_000_000)
        del one
        assert (storages.live, storages.peak) == (1_000_000, 2_000_000)
        third = torch.zeros(MEGA, dtype=torch.float16)
        assert (storages.live, storages.peak) == (1_500_000, 2_000_000)
        storages.hold(600_000)
        assert storages.peak == 2_100_000
    del other, third
    assert storages.live == 0


def test_views_and_operations_in_place_take_nothing() -> None:
    before = torch.zeros(MEGA)
    with LiveStorages() as storages:
        storages.ignore([before])
        before.add_(1).view(10, -1).t().mul_(2)
        assert storages.peak == 0
        whole = torch.zeros(MEGA)
        part = whole[:10]
        del whole
        assert storages.live == 1_000_000
        del part
    assert storages.live == 0


def test_what_backward_keeps_lives_until_it_is_over() -> None:
    weight = torch.zeros(MEGA, requires_grad=True)
    with LiveStorages() as storages:
        storages.ignore([weight])
        loss = (weight.exp().sin() * 1).sum()  # exp keeps its result, sin its input: the same
        assert storages.live == 1_000_000 + loss.element_size()
        loss.backward()
        # The gradient, the loss; a product with a number keeps nothing.
        assert storages.live == 1_000_000 + loss.element_size()
    assert weight.grad is not None


def multiply_adds(groups: int, stride: int) -> int:
    """Of a 3x3 convolution of 8 to 12 channels on 10x10 images, two of them, one by one."""
    side = 10 // stride
    return 2 * side**2 * 12 * (8 // groups) * 9


def convolved(groups: int, stride: int, images: Tensor) -> int:
    weight = torch.zeros(12, 8 // groups, 3, 3, requires_grad=True)
    with LiveStorages() as storages:
        result = functional.conv2d(images, weight, stride=stride, padding=1, groups=groups)
        result.sum().backward()
    return storages.flops


def test_every_multiply_add_of_a_convolution_has_one_for_each_of_its_gradients() -> None:
    plain, differentiable = torch.zeros(2, 8, 10, 10), torch.zeros(2, 8, 10, 10, requires_grad=True)
    for groups in (1, 4):
        for stride in (1, 2):
            own = multiply_adds(groups, stride)
            assert convolved(groups, stride, plain) == 2 * 2 * own
            assert convolved(groups, stride, differentiable) == 2 * 3 * own


def test_matrix_products_count_and_sums_do_not() -> None:
    with LiveStorages() as storages:
        product = torch.zeros(3, 4) @ torch.zeros(4, 5)
        torch.zeros(7, 3, 4) @ torch.zeros(7, 4, 5)
        (product + 1).exp().sum()
    assert storages.flops == 2 * 3 * 4 * 5 * (1 + 7)
