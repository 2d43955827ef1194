from __future__ import annotations

import pytest

from unlabeled.data.sampling.sequential import Sequential


def test_position_is_index_in_every_epoch_and_for_every_seed() -> None:
    for seed in (0, 9):
        sampler = Sequential(Sequential.Config(), num_samples=10, seed=seed)
        assert (
            sampler.indices(0, 3, 7).tolist() == sampler.indices(5, 3, 7).tolist() == [3, 4, 5, 6]
        )
        assert sampler.indices(0, 10, 10).tolist() == []


def test_past_the_end_is_an_error() -> None:
    sampler = Sequential(Sequential.Config(), num_samples=10, seed=0)
    with pytest.raises(IndexError, match=r"range\(10\)"):
        sampler.indices(0, 8, 11)
