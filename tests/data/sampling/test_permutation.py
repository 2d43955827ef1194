from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from unlabeled.data.sampling.permutation import Permutation

SIZES = [*range(1, 70), 97, 127, 128, 129, 255, 256, 257, 1009, 4095, 4096, 4097, 99_991, 100_000]


@pytest.mark.parametrize("size", SIZES)
def test_every_element_once_and_the_inverse_undoes_it(size: int) -> None:
    permutation = Permutation(size, 5, size)
    order = permutation(np.arange(size))
    assert np.array_equal(np.sort(order), np.arange(size))
    assert np.array_equal(permutation.inverse(order), np.arange(size))


@pytest.mark.parametrize("size", [10**9, 10**12, (1 << 40) + 1, 1 << 62])
def test_huge_sizes_are_inverted_where_sampled(size: int) -> None:
    permutation = Permutation(size, 1)
    positions = np.random.default_rng(0).integers(0, size, 2000)
    positions[:2] = 0, size - 1
    elements = permutation(positions)
    assert elements.min() >= 0 and elements.max() < size
    assert np.array_equal(permutation.inverse(elements), positions)
    # Uniform in range(size): the mean of 2000 is within 4.5 standard errors of size / 2.
    assert abs(elements.mean() / size - 0.5) < 4.5 / np.sqrt(12 * 2000)


def test_a_slice_of_positions_gives_a_slice_of_the_order() -> None:
    permutation = Permutation(1000, 3)
    order = permutation(np.arange(1000))
    assert np.array_equal(permutation(np.arange(300, 317)), order[300:317])
    assert permutation(np.arange(0)).shape == (0,)


@pytest.mark.parametrize("size", [3, 4, pytest.param(5, marks=pytest.mark.slow)])
def test_all_orders_of_few_elements_are_equally_likely(size: int) -> None:
    orders = dict.fromkeys(permutations(range(size)), 0)
    draws = 50 * len(orders)
    for key in range(draws):
        orders[tuple(Permutation(size, key)(np.arange(size)).tolist())] += 1
    chi_square = sum((count - 50) ** 2 / 50 for count in orders.values())
    freedom = len(orders) - 1
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom)


def test_neighbours_are_torn_apart() -> None:
    order = Permutation(10_000, 8)(np.arange(10_000))
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.04
    # A random permutation has about one fixed point and one pair i, i + 1 kept in order.
    assert (order == np.arange(10_000)).sum() < 10
    assert (np.diff(order) == 1).sum() < 10


@pytest.mark.parametrize("position", [-1, 10])
def test_positions_outside_are_refused(position: int) -> None:
    with pytest.raises(IndexError, match=r"range\(10\)"):
        Permutation(10, 0)(np.array([position]))


def test_nothing_cannot_be_permuted() -> None:
    with pytest.raises(ValueError, match="got 0"):
        Permutation(0, 0)
