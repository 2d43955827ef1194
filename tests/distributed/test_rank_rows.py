"""Rows that W ranks pushed lie, once redistributed, where other ranks would have pushed them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import pytest
import torch
from torch import Tensor

from unlabeled.distributed.rank_rows import RankRows, redistribute

RANKS = (1, 2, 3, 4, 6, 12)
BATCH, MICRO_STEPS, STEPS = 24, 2, 4
MICRO_BATCH = BATCH // MICRO_STEPS
PAIRS = list(product(RANKS, RANKS))


def micro_batches(rank: int, ranks: int) -> Iterator[tuple[int, int, list[int]]]:
    """(step, micro step, images) of a rank: images are numbered in the order of one process."""
    share = MICRO_BATCH // ranks
    for step, micro_step in product(range(STEPS), range(MICRO_STEPS)):
        first = step * BATCH + micro_step * MICRO_BATCH + rank * share
        yield step, micro_step, list(range(first, first + share))


def queue(rank: int, ranks: int) -> list[int]:
    """The newest micro-batches, the newest first, cut to five of them."""
    held: list[int] = []
    for _, _, images in micro_batches(rank, ranks):
        held = images + held
    return held[: 5 * MICRO_BATCH // ranks]


def overwritten_bank(rank: int, ranks: int) -> list[int]:
    """A slot per image of an epoch of two steps; the later epoch is in the middle of its way."""
    slots = [-1] * (2 * BATCH // ranks)
    for step, micro_step, images in list(micro_batches(rank, ranks))[:-1]:
        start = (step % 2) * (BATCH // ranks) + micro_step * len(images)
        slots[start : start + len(images)] = images
    return slots


def divided_bank(rank: int, ranks: int) -> list[int]:
    """A row per image of the data set, a contiguous part on every rank."""
    share = STEPS * BATCH // ranks
    return list(range(rank * share, (rank + 1) * share))


Holds = Callable[[int, int], list[int]]
BUFFERS: dict[str, tuple[Holds, int]] = {
    "queue": (queue, MICRO_BATCH),
    "overwritten bank": (overwritten_bank, MICRO_BATCH),
    "divided bank": (divided_bank, STEPS * BATCH),
}


def buffer(images: list[int], axis: int) -> Tensor:
    """Three dimensions, with the rows along one; every entry tells its image and its place."""
    other = torch.arange(6.0).view(2, 3) / 10
    return torch.stack([image + other for image in images], dim=axis)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", BUFFERS)
def test_the_rows_are_those_that_the_other_ranks_would_hold(name: str, axis: int) -> None:
    holds, block = BUFFERS[name]
    for written_by, ranks in PAIRS:
        left = [buffer(holds(former, written_by), axis) for former in range(written_by)]
        for rank in range(ranks):
            found = redistribute(
                left.__getitem__,
                RankRows(axis, block),
                written_by=written_by,
                rank=rank,
                ranks=ranks,
            )
            expected = buffer(holds(rank, ranks), axis)
            assert torch.equal(found, expected), (written_by, ranks, rank)
            assert found.is_contiguous()


@pytest.mark.parametrize(("written_by", "ranks"), PAIRS)
def test_only_ranks_that_hold_some_of_the_rows_are_asked(written_by: int, ranks: int) -> None:
    left = [torch.tensor(queue(former, written_by)) for former in range(written_by)]
    for rank in range(ranks):
        asked: set[int] = set()

        def ask(former: int, asked: set[int] = asked) -> Tensor:
            asked.add(former)
            return left[former]

        rows = RankRows(axis=0, block=MICRO_BATCH)
        found = redistribute(ask, rows, written_by=written_by, rank=rank, ranks=ranks)
        mine = set(found.tolist())
        holders = {former for former in range(written_by) if mine & set(left[former].tolist())}
        assert asked == holders


def test_no_rows_are_divided_into_none() -> None:
    found = redistribute(
        lambda former: torch.zeros(2, 0, 5),
        RankRows(axis=1, block=MICRO_BATCH),
        written_by=4,
        rank=2,
        ranks=3,
    )
    assert found.shape == (2, 0, 5)
