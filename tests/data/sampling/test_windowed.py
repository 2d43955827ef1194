from __future__ import annotations

import time
import tracemalloc
from itertools import product

import numpy as np
import pytest

from unlabeled.data.sampling.base import Sampler
from unlabeled.data.sampling.block_shuffled import BlockShuffled
from unlabeled.data.sampling.sequential import Sequential
from unlabeled.data.sampling.shuffled import Shuffled
from unlabeled.data.sampling.windowed import Windowed


def sampler(num_samples: int, seed: int = 0, window: int = 8) -> Windowed:
    return Windowed(Windowed.Config(window_samples=window), num_samples=num_samples, seed=seed)


def test_every_window_holds_its_own_samples_once_for_all_small_sizes() -> None:
    for size, window in product(range(1, 20), (1, 2, 5, 8, 40)):
        order = sampler(size, 3, window).indices(1, 0, size)
        assert order.dtype == np.int64
        for first in range(0, size, window):
            end = min(first + window, size)
            assert sorted(order[first:end].tolist()) == list(range(first, end))


def test_any_position_is_found_without_those_before_it() -> None:
    order = sampler(47, 1, 9)
    whole = order.indices(2, 0, 47)
    for start, stop in product(range(0, 48, 3), range(0, 48, 5)):
        if start <= stop:
            assert np.array_equal(order.indices(2, start, stop), whole[start:stop])


def test_windows_are_shuffled_each_in_its_own_way_anew_every_epoch_and_by_seed() -> None:
    orders = {
        (sampler(1000, seed, 100).indices(epoch, first, first + 100) - first).tobytes()
        for seed, epoch, first in product((0, 1), (0, 1), range(0, 1000, 100))
    }
    assert len(orders) == 40


@pytest.mark.parametrize(
    "order", [sampler(100), Sequential(Sequential.Config(), num_samples=100, seed=0)]
)
def test_what_is_forward_needs_no_more_than_a_window_ahead(order: Sampler) -> None:
    assert order.forward
    assert np.abs(order.indices(0, 0, 100) - np.arange(100)).max() < 8


@pytest.mark.parametrize(
    "order",
    [
        Shuffled(Shuffled.Config(), num_samples=10**6, seed=0),
        BlockShuffled(BlockShuffled.Config(), num_samples=10**6, seed=0),
    ],
)
def test_orders_that_jump_do_not_claim_to_be_forward(order: Sampler) -> None:
    assert not order.forward
    assert np.abs(order.indices(0, 0, 100) - np.arange(100)).max() > 65536


def test_a_billion_samples_start_at_once_in_no_memory() -> None:
    tracemalloc.start()
    started = time.process_time()
    assert len(sampler(10**9, 0, 65536).indices(0, 5 * 10**8, 5 * 10**8 + 256)) == 256
    assert time.process_time() - started < 0.1
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (8, 11)])
def test_positions_outside_are_refused(start: int, stop: int) -> None:
    with pytest.raises(IndexError, match=r"range\(10\)"):
        sampler(10).indices(0, start, stop)
    assert len(sampler(10).indices(0, 4, 4)) == 0


def test_a_window_must_be_positive() -> None:
    assert dict(Windowed.Config(window_samples=0).problems()).keys() == {"window_samples"}
