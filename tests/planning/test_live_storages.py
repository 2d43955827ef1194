"""Bytes that live at once, by hand."""

from __future__ import annotations

import torch

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
