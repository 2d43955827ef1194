from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from unlabeled.data.sampling.shuffled import Shuffled


def sampler(num_samples: int, seed: int = 0) -> Shuffled:
    return Shuffled(Shuffled.Config(), num_samples=num_samples, seed=seed)


def test_an_epoch_holds_every_sample_once_in_whatever_pieces_it_is_read() -> None:
    pieces = [
        sampler(1003).indices(4, start, min(start + 64, 1003)) for start in range(0, 1003, 64)
    ]
    assert np.array_equal(np.concatenate(pieces), sampler(1003).indices(4, 0, 1003))
    assert sorted(np.concatenate(pieces).tolist()) == list(range(1003))


def test_epochs_and_seeds_give_unrelated_orders() -> None:
    orders = [
        sampler(1000, seed).indices(epoch, 0, 1000) for seed in (0, 1) for epoch in (-1, 0, 1)
    ]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert (one == other).sum() < 10  # one match is expected
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.15


@pytest.mark.slow
def test_where_a_sample_lands_is_uniform_over_epochs() -> None:
    size, epochs = 50, 5000
    samples = np.array([0, 17, 49])
    places = np.stack([sampler(size).positions(epoch, samples) for epoch in range(epochs)])
    for column in places.T:
        counts = np.bincount(column, minlength=size)
        chi_square = ((counts - epochs / size) ** 2 / (epochs / size)).sum()
        assert chi_square < 85.4  # 99.9 % quantile with 49 degrees of freedom


def test_positions_are_the_inverse_of_indices() -> None:
    order = sampler(10**9, seed=3)
    indices = order.indices(2, 10**8, 10**8 + 500)
    assert np.array_equal(order.positions(2, indices), np.arange(10**8, 10**8 + 500))


def test_a_billion_samples_start_at_once_in_no_memory() -> None:
    tracemalloc.start()
    started = time.process_time()
    assert len(sampler(10**9).indices(0, 5 * 10**8, 5 * 10**8 + 256)) == 256
    assert time.process_time() - started < 0.1
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_past_the_end_is_an_error() -> None:
    with pytest.raises(IndexError, match=r"range\(10\)"):
        sampler(10).indices(0, 8, 11)
