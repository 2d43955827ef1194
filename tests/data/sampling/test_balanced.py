from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unlabeled.data.sampling.balanced import equal_draws

DATA = Path(__file__).parents[1]


@pytest.mark.parametrize(("count", "seed"), [(61, 562), (100, 601), (20, 521)])
def test_draws_are_those_of_the_official_sampler(count: int, seed: int) -> None:
    with np.load(DATA / "deepcluster_v1_steps.npz") as golden:
        index, label = golden["sampler_labels"].T
        expected = golden[f"sampler_N{count}_npseed{seed}_indexes"]
    groups = np.empty(len(index), dtype=np.int64)
    groups[index] = label
    assert 1 not in label  # a cluster without images, which the sampler must leave out
    drawn = equal_draws(groups, count, np.random.RandomState(seed))
    assert np.array_equal(drawn, expected)


def test_groups_come_equally_often_and_large_ones_without_repeats() -> None:
    groups = np.repeat([5, 1, 3], [1, 40, 7])  # 48 draws of three groups: 17 each
    drawn = equal_draws(groups, 48, np.random.RandomState(0))
    assert len(drawn) == 48
    counts = np.bincount(groups[drawn], minlength=6)
    assert counts[[5, 1, 3]].min() >= 14 and counts.max() == 17  # 51 shuffled, 48 kept
    large = drawn[groups[drawn] == 1]
    assert len(set(large.tolist())) == len(large)


def test_samples_without_a_group_are_never_drawn() -> None:
    groups = np.array([0, -1, 0, 1, -1])
    assert set(equal_draws(groups, 200, np.random.RandomState(1)).tolist()) == {0, 2, 3}
    with pytest.raises(ValueError, match="no sample has a group"):
        equal_draws(np.array([-1, -1]), 3, np.random.RandomState(1))


def test_the_state_of_the_generator_decides() -> None:
    groups = np.arange(30) % 4
    first, again, other = (
        equal_draws(groups, 30, np.random.RandomState(seed)).tolist() for seed in (3, 3, 4)
    )
    assert first == again != other
