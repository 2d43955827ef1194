from __future__ import annotations

import numpy as np
import pytest

from unlabeled.data.sampling.listed import Listed


def test_positions_are_those_of_the_list_in_every_epoch() -> None:
    order = np.array([4, 4, 0, 7, 4, 0])
    for epoch in (0, 3):
        assert Listed(order).indices(epoch, 1, 4).tolist() == [4, 0, 7]
        assert Listed(order).indices(epoch, 6, 6).tolist() == []


def test_repeats_count_what_came_before() -> None:
    order = np.random.default_rng(0).integers(0, 9, size=60)
    listed = Listed(order)
    for position, sample in enumerate(order):
        assert listed.repeat(0, position) == (order[:position] == sample).sum()


@pytest.mark.parametrize(("start", "stop"), [(-1, 1), (2, 4)])
def test_outside_the_list_is_an_error(start: int, stop: int) -> None:
    with pytest.raises(IndexError, match=r"range\(3\)"):
        Listed(np.array([1, 2, 3])).indices(0, start, stop)
