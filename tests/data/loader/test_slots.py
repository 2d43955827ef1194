"""Batches are lent: whole until the next one is asked for, then their memory is used again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests_support.loading import CPU, Kind, Painted, content, loading, steps_of, stream, synthetic
from unlabeled.data.loader import eval_batches
from unlabeled.data.loader.slots import BatchArrays
from unlabeled.data.types import Batch

CREWS = [
    pytest.param(0, "auto", id="alone"),
    pytest.param(2, "threads", id="threads"),
    pytest.param(2, "processes", id="processes", marks=pytest.mark.slow),
]


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for others; the test fails where they never come."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("prefetch", [1, 3])
@pytest.mark.parametrize(("workers", "kind"), CREWS)
def test_a_batch_stays_whole_until_the_next_is_asked_for(
    workers: int, kind: Kind, prefetch: int
) -> None:
    dataset = steps_of(synthetic())
    expected = [content(dataset[(step, 0)]) for step in range(12)]
    lent = stream(dataset, range(12), workers, kind, prefetch)
    held, places = [], []
    for step, batch in enumerate(lent):
        time.sleep(0.02)  # others fill all the slots that they may
        assert content(batch) == expected[step]
        held.append(batch)
        places.append(batch.views[0].data_ptr())
    slots = 1 + prefetch if workers else 1
    assert places == (12 * places[:slots])[:12] and len(set(places)) == slots
    # Indices, labels and names are small and may be kept.
    assert [tuple(batch.indices.tolist()) for batch in held] == [each[1] for each in expected]
    assert [batch.labels.tolist() for batch in held if batch.labels is not None] == [
        each[2] for each in expected
    ]


def test_no_more_is_done_ahead_than_was_asked_for() -> None:
    asked: list[int] = []

    class Counting(Painted):
        def write(self, *arguments: object) -> None:
            asked.append(1)

    lent = stream(steps_of(synthetic(), Counting()), range(40), 3, "threads", prefetch=2)
    for taken in range(1, 4):
        next(lent)
        until(lambda: len(asked) == 12 * (taken + 2))  # noqa: B023
        time.sleep(0.05)
        assert len(asked) == 12 * (taken + 2)


def one_piece(views: list[torch.Tensor]) -> bool:
    """Whether the views lie behind each other, so that one copy takes them all."""
    ends = [view.data_ptr() + view.nbytes for view in views]
    return all(view.is_contiguous() for view in views) and ends[:-1] == [
        view.data_ptr() for view in views[1:]
    ]


@pytest.mark.parametrize(("workers", "kind"), CREWS)
def test_views_of_one_size_are_one_piece_of_memory(workers: int, kind: Kind) -> None:
    batches: list[Batch] = []
    for batch in eval_batches(
        synthetic(), Painted(), batch_size=20, rank=0, world_size=1,
        loader=loading(workers, kind), device=CPU,
    ):  # fmt: skip
        batches.append(batch)
        assert one_piece(batch.views[:2]) and one_piece(batch.views[2:])
    assert [len(batch) for batch in batches] == [20, 20, 10]


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_no_two_arrays_share_a_byte(rows: int) -> None:
    pipeline = Painted()
    memory = np.zeros(BatchArrays.num_bytes(pipeline, rows), dtype=np.uint8)
    arrays = BatchArrays(pipeline, rows, memory)
    parts = [arrays.indices, arrays.labels, arrays.deferred, *arrays.views]
    assert [part.shape for part in parts] == [
        (rows,), (rows,), (3, rows, 2, 2), (rows, 3, 12, 12), (rows, 3, 12, 12), (rows, 3, 8, 8)
    ]  # fmt: skip
    for part in parts:
        assert not part.any()  # nobody else wrote here
        part.view(np.uint8)[...] = 255
    assert int((memory == 255).sum()) == sum(part.nbytes for part in parts)


def resident(pid: int) -> int:
    """Bytes of memory that a process has in use."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kind"), CREWS)
def test_memory_does_not_grow(workers: int, kind: Kind) -> None:
    """Each batch of these is 9 kB: kept or leaked, 600 of them would take 5.4 MB."""
    dataset = steps_of(synthetic(1000), batch_size=8, steps_per_epoch=125)
    used = {}
    for number, _ in enumerate(stream(dataset, range(700), workers, kind), start=1):
        if number in (100, 700):
            used[number] = resident(os.getpid())
    assert used[700] - used[100] < 4e6
