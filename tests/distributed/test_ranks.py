"""The process pool of the tests: results by rank, a real group, failures with their cause."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests_support import ranks
from tests_support.ranks import run_ranks
from unlabeled.distributed import comm


@dataclass(frozen=True)
class Answer:
    rank: int
    total: float
    threads: int
    process: int


def add_over_ranks(share: float) -> Answer:
    total = comm.all_reduce_sum(torch.tensor([share * (comm.rank() + 1)]))
    return Answer(comm.rank(), float(total), torch.get_num_threads(), os.getpid())


def fail_on(rank: int) -> None:
    if comm.rank() == rank:
        raise ValueError(f"on purpose, by rank {rank}")
    comm.barrier()  # the others wait for ever


def expect_an_error() -> None:
    with pytest.raises(ValueError, match="never"):
        comm.barrier()


def hang_on(rank: int) -> None:
    if comm.rank() == rank:
        time.sleep(600)


def die_on(rank: int) -> None:
    if comm.rank() == rank:
        os._exit(7)
    comm.barrier()


def leave_late(notes: Path) -> None:
    """Note half a second after the end whether the file of the group's store is still there."""
    destroy, store = dist.destroy_process_group, dist.distributed_c10d._get_default_store()
    while isinstance(store, dist.PrefixStore):
        store = store.underlying_store

    def slowly() -> None:
        dist.destroy_process_group = destroy
        time.sleep(0.5)
        (notes / str(comm.rank())).write_text(str(Path(store.path).exists()))
        destroy()

    dist.destroy_process_group = slowly


def draw_and_read(name: str) -> tuple[float, str | None, str]:
    return float(torch.rand(())), os.environ.get(name), os.getcwd()


@pytest.mark.parametrize("world_size", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_results_come_by_rank_from_one_group(world_size: int) -> None:
    answers = run_ranks(add_over_ranks, world_size, 0.5)
    assert [answer.rank for answer in answers] == list(range(world_size))
    total = 0.5 * sum(range(1, world_size + 1))
    assert {(answer.total, answer.threads) for answer in answers} == {(total, 1)}
    assert len({answer.process for answer in answers} - {os.getpid()}) == world_size


def test_processes_are_kept_between_calls() -> None:
    first, second = (run_ranks(add_over_ranks, 2, 1.0) for _ in range(2))
    assert first == second


def test_a_groups_store_is_there_until_all_have_left_it(tmp_path: Path) -> None:
    run_ranks(leave_late, 2, tmp_path)
    assert {note.name: note.read_text() for note in tmp_path.iterdir()} == {
        "0": "True",
        "1": "True",
    }


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_failure_carries_the_ranks_traceback_and_the_pool_recovers(rank: int) -> None:
    with pytest.raises(RuntimeError, match=rf"(?s)rank {rank} of 2 failed.*fail_on.*on purpose"):
        run_ranks(fail_on, 2, rank)
    assert [answer.total for answer in run_ranks(add_over_ranks, 2, 1.0)] == [3.0, 3.0]


@pytest.mark.slow
def test_a_rank_is_started_anew_where_no_fork_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    (before,) = run_ranks(add_over_ranks, 1, 0.5)
    with pytest.raises(RuntimeError, match="on purpose"):
        run_ranks(fail_on, 1, 0)
    monkeypatch.setattr(ranks, "_spare", [])
    (after,) = run_ranks(add_over_ranks, 1, 0.5)
    assert after.process != before.process and after.total == 0.5


@pytest.mark.slow
def test_a_process_never_gets_another_rank() -> None:
    before = [answer.process for answer in run_ranks(add_over_ranks, 3, 1.0)]
    with pytest.raises(RuntimeError, match="on purpose"):
        run_ranks(fail_on, 2, 0)
    after = [answer.process for answer in run_ranks(add_over_ranks, 3, 1.0)]
    assert set(before) & set(after) == {before[2]}
    assert after[2] == before[2]


@pytest.mark.slow
def test_expectation_that_fails_in_a_rank_fails_the_call() -> None:
    with pytest.raises(RuntimeError, match="DID NOT RAISE"):
        run_ranks(expect_an_error, 2)


@pytest.mark.slow
def test_death_and_hang_are_reported() -> None:
    with pytest.raises(RuntimeError, match="rank 1 of 2 died with exit status 7"):
        run_ranks(die_on, 2, 1)
    with pytest.raises(RuntimeError, match=r"(?s)no result after .*rank 1 was at.*hang_on") as info:
        run_ranks(hang_on, 2, 1, timeout=20.0)
    assert "rank 0 was at" not in str(info.value)


def test_every_call_starts_from_the_same_state(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    before = run_ranks(draw_and_read, 2, "OF_THIS_TEST")
    monkeypatch.setenv("OF_THIS_TEST", "set")
    monkeypatch.chdir(str(tmp_path))
    after = run_ranks(draw_and_read, 2, "OF_THIS_TEST")
    assert [value for _, value, _ in before] == [None, None]
    assert [(value, cwd) for _, value, cwd in after] == [("set", str(tmp_path))] * 2
    assert len({draw for draw, _, _ in [*before, *after]}) == 1
