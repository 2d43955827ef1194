"""The queue of keys: what enters first leaves first, whole blocks at a time."""

from __future__ import annotations

import pytest
import torch

from unlabeled.errors import ConfigError
from unlabeled.methods.key_queue import KeyQueue


def test_a_trajectory_by_hand() -> None:
    queue = KeyQueue(wanted=6, block=2, dim=1)
    queue.keys.zero_()
    seen = []
    for first in (1.0, 3.0, 5.0, 7.0, 9.0):
        queue.push(torch.tensor([[first], [first + 1]]))
        seen.append((queue.keys.flatten().tolist(), int(queue.next_row)))
    assert seen == [
        ([1, 2, 0, 0, 0, 0], 2),
        ([1, 2, 3, 4, 0, 0], 4),
        ([1, 2, 3, 4, 5, 6], 0),
        ([7, 8, 3, 4, 5, 6], 2),
        ([7, 8, 9, 10, 5, 6], 4),
    ]


def test_it_always_holds_the_newest_keys() -> None:
    queue, pushed = KeyQueue(wanted=12, block=3, dim=2), []
    for step in range(17):
        pushed.append(torch.randn(3, 2, generator=torch.Generator().manual_seed(step)))
        queue.push(pushed[-1])
        newest = torch.cat(pushed[-4:]).sort(dim=0).values
        if step >= 3:
            torch.testing.assert_close(queue.keys.sort(dim=0).values, newest, rtol=0, atol=0)


def test_the_state_is_all_of_it() -> None:
    first, second = (KeyQueue(wanted=6, block=2, dim=3) for _ in range(2))
    first.push(torch.ones(2, 3))
    second.load_state_dict(first.state_dict())
    for queue in (first, second):
        queue.push(torch.full((2, 3), 2.0))
    assert torch.equal(first.keys, second.keys)
    assert int(first.next_row) == int(second.next_row) == 4


def test_it_starts_with_random_unit_vectors() -> None:
    keys = KeyQueue(wanted=400, block=4, dim=16).keys
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(400))
    # A cosine of random directions in D dimensions has mean 0 and deviation 1 / sqrt(D).
    cosines = (keys @ keys.T)[~torch.eye(400, dtype=torch.bool)]
    assert abs(float(cosines.mean())) < 0.01
    assert float(cosines.std()) == pytest.approx(0.25, rel=0.05)


@pytest.mark.parametrize(("wanted", "length"), [(8, 8), (11, 8), (4, 4)])
def test_the_length_is_whole_blocks(wanted: int, length: int) -> None:
    assert KeyQueue(wanted=wanted, block=4, dim=2).length == length


def test_less_than_a_block_is_refused() -> None:
    with pytest.raises(ConfigError, match="queue_samples: 3 keys are less than the 4"):
        KeyQueue(wanted=3, block=4, dim=2)
