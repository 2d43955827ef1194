from __future__ import annotations

import math
import time
import tracemalloc
from itertools import chain, permutations, product

import numpy as np
import pytest

from tests_support.probes import Pixels, Whole
from unlabeled.data.loader import StepBatches
from unlabeled.data.sampling.block_shuffled import BlockShuffled


def sampler(
    num_samples: int, seed: int = 0, block: int = 1024, window: int = 65536
) -> BlockShuffled:
    config = BlockShuffled.Config(block_samples=block, window_samples=window)
    return BlockShuffled(config, num_samples=num_samples, seed=seed)


@pytest.mark.slow
def test_an_epoch_holds_every_sample_once_for_all_small_sizes() -> None:
    for size, block, window in product(range(1, 20), (1, 2, 3, 7, 30), (2, 5, 8, 40)):
        order = sampler(size, 3, block, window).indices(1, 0, size)
        assert order.dtype == np.int64 and sorted(order.tolist()) == list(range(size))


@pytest.mark.parametrize(("block", "window"), [(1, 3), (4, 16), (5, 13), (16, 4), (100, 1000)])
def test_any_position_is_found_without_those_before_it(block: int, window: int) -> None:
    order = sampler(47, 1, block, window)
    whole = order.indices(2, 0, 47)
    for start, stop in product(range(0, 48, 3), range(0, 48, 5)):
        if start <= stop:
            assert np.array_equal(order.indices(2, start, stop), whole[start:stop])


@pytest.mark.parametrize(("ranks", "micro_steps"), [(1, 1), (2, 1), (3, 2), (6, 1), (4, 3)])
def test_ranks_and_micro_steps_together_take_every_sample_once_an_epoch(
    ranks: int, micro_steps: int
) -> None:
    """Also when another number of ranks goes on in the middle of the epoch."""
    source = Pixels(np.zeros((48, 4, 4, 3), np.uint8), None, ())
    order = sampler(48, 7, block=5, window=12)

    def taken(world: int, micro: int, steps: range) -> list[int]:
        parts = [
            StepBatches(
                *(source, Whole(), order),
                seed=7,
                batch_size=12,
                micro_steps=micro,
                rank=rank,
                world_size=world,
                steps_per_epoch=4,
            )
            for rank in range(world)
        ]
        items = product(steps, range(micro), parts)
        return [i for step, m, part in items for i in part.wanted((step, m)).tolist()]

    for epoch in (0, 1):
        steps = range(4 * epoch, 4 * epoch + 4)
        whole = taken(ranks, micro_steps, steps)
        assert sorted(whole) == list(range(48))
        resumed = taken(1, 1, steps[:1]) + taken(ranks, micro_steps, steps[1:])
        assert resumed == whole == order.indices(epoch, 0, 48).tolist()


def test_a_window_reads_from_few_blocks() -> None:
    order = sampler(10_007, 0, block=100, window=1000).indices(0, 0, 10_007)
    for first in range(0, 10_007, 1000):
        assert len(set(order[first : first + 1000] // 100)) <= 1000 // 100 + 2


def test_blocks_and_windows_are_shuffled_anew_every_epoch() -> None:
    orders = [
        sampler(10_000, seed, block=10, window=200).indices(epoch, 0, 10_000)
        for seed, epoch in product((0, 1), (0, 1))
    ]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert (one == other).sum() < 15  # one match is expected
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.15
        # Neighbours in the order are rarely neighbours in the data set: a window of 20 blocks of
        # 10 has 180 such pairs among 199 * 200 / 2, so 0.9 per window and direction are expected.
        assert (np.diff(one) == 1).sum() < 100


def test_every_window_has_an_order_of_its_own() -> None:
    order = sampler(1000, 0, block=1000, window=100).indices(0, 0, 1000)
    assert len({tuple(order[first : first + 100] - first) for first in range(0, 1000, 100)}) == 10


@pytest.mark.slow
def test_where_a_sample_lands_is_as_likely_as_by_all_orders_of_the_blocks() -> None:
    """13 samples in 4 blocks, the last one short, and 3 windows, over 400 epochs."""
    size, block, window, epochs = 13, 4, 5, 400
    blocks = [range(first, min(first + block, size)) for first in range(0, size, block)]
    expected = np.zeros((size, size))  # [sample, position]
    for order in permutations(blocks):
        for place, sample in enumerate(chain(*order)):
            first = place // window * window
            end = min(first + window, size)
            expected[sample, first:end] += epochs / math.factorial(len(blocks)) / (end - first)
    drawn = [sampler(size, 0, block, window).indices(epoch, 0, size) for epoch in range(epochs)]
    for sample in range(size):
        counts, likely = (np.stack(drawn) == sample).sum(axis=0), expected[sample] > 0
        assert not counts[~likely].any()
        squares = (counts - expected[sample])[likely] ** 2
        chi_square = (squares / expected[sample][likely]).sum()
        assert chi_square < 39.1  # 99.99 % quantile with 12 degrees of freedom


def test_a_billion_samples_start_at_once_in_no_memory() -> None:
    tracemalloc.start()
    started = time.process_time()
    assert len(sampler(10**9).indices(0, 5 * 10**8, 5 * 10**8 + 256)) == 256
    assert time.process_time() - started < 0.1
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (8, 11)])
def test_positions_outside_are_refused(start: int, stop: int) -> None:
    with pytest.raises(IndexError, match=r"range\(10\)"):
        sampler(10).indices(0, start, stop)
    assert len(sampler(10).indices(0, 4, 4)) == 0


def test_sizes_must_be_positive() -> None:
    problems = dict(BlockShuffled.Config(block_samples=0, window_samples=-1).problems())
    assert set(problems) == {"block_samples", "window_samples"}
