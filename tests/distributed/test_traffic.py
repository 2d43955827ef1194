"""The count of collectives agrees with the kernel's own, of the sockets that ranks talk through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests_support.in_process import different, state_of, tiny_trainer
from tests_support.ranks import run_ranks
from tests_support.sockets import bytes_sent
from unlabeled.distributed import comm
from unlabeled.distributed.traffic import Collective, counted
from unlabeled.hooks.base import Hook

DTYPES = {1: torch.uint8, 2: torch.bfloat16, 4: torch.float32, 8: torch.float64}


def replay(collective: Collective) -> None:
    """The same operation on as many elements of the same width, asked of torch directly."""
    if collective.operation == "barrier":
        dist.barrier()
        return
    width = collective.bytes // collective.elements
    tensor = torch.zeros(collective.elements, dtype=DTYPES[width])
    if collective.operation == "allreduce_":
        dist.all_reduce(tensor)
    elif collective.operation == "broadcast_":
        dist.broadcast(tensor, 0)
    elif collective.operation == "allgather_":
        dist.all_gather([torch.empty_like(tensor) for _ in range(dist.get_world_size())], tensor)
    else:
        assert collective.operation == "_allgather_base_", collective
        dist.all_gather_into_tensor(tensor.repeat(dist.get_world_size()), tensor)


class EveryStep(Hook):
    """The kernel's count and ours at the end of every step."""

    def __init__(self, found: list[Collective]) -> None:
        self.found = found
        self.marks: list[tuple[int, int]] = []

    def before_fit(self, trainer: Any) -> None:
        self.step_done(trainer)

    def step_done(self, trainer: Any) -> None:
        dist.barrier()  # the peer has all that this rank had to say
        self.marks.append((bytes_sent(), len(self.found)))


def sent_and_replayed(folder: str, method: str) -> list[tuple[int, int, list[Collective]]]:
    """Per step: bytes that the kernel sent, those for what was counted, and what was counted."""
    choices = (f"method={method}", "launch.processes=2", "epochs=2", "hooks.knn_probe=null")
    trainer = tiny_trainer(Path(folder), *choices)
    with counted() as found:
        hook = EveryStep(found)
        trainer.hooks.append(hook)
        trainer.fit()
    result = []
    for (before, start), (after, stop) in zip(hook.marks, hook.marks[1:], strict=False):
        dist.barrier()
        first = bytes_sent()
        for collective in found[start:stop]:
            replay(collective)
        result.append((after - before, bytes_sent() - first, found[start:stop]))
    return result


@pytest.mark.slow
@pytest.mark.parametrize("method", ["swav", "simclr", "deepcluster_v2"])
def test_nothing_crosses_the_process_boundary_uncounted(method: str, tmp_path: Path) -> None:
    """Whole epochs: set-up of DDP's buckets, clustering, meters and checkpoints included."""
    for steps in run_ranks(sent_and_replayed, 2, str(tmp_path), method):
        assert len(steps) == 8
        for kernel, replayed, collectives in steps:
            assert kernel == replayed
            assert kernel > sum(c.bytes for c in collectives if c.operation == "allreduce_") > 0


def every_function_of_comm() -> list[tuple[str, int, int]]:
    with counted() as found:
        rows = torch.ones(3, 5, requires_grad=True)
        comm.all_reduce_sum(torch.ones(7))
        comm.all_reduce_max(torch.ones(8, dtype=torch.float64))
        comm.broadcast(torch.ones(9, dtype=torch.uint8))
        comm.all_gather(torch.ones(2, 5, dtype=torch.bfloat16))
        comm.all_gather_with_gradient(rows).sum().backward()
    comm.all_reduce_sum(torch.ones(11))  # the context is closed
    assert {call.callers[0] for call in found} == {"unlabeled.distributed.comm"}
    return [(call.operation, call.elements, call.bytes) for call in found]


@pytest.mark.slow
def test_counts_what_a_rank_puts_in() -> None:
    expected = [
        ("allreduce_", 7, 28),
        ("allreduce_", 8, 64),
        ("broadcast_", 9, 9),
        ("allgather_", 10, 20),
        ("allgather_", 15, 60),
        ("allreduce_", 30, 120),
    ]
    assert run_ranks(every_function_of_comm, 2) == [expected] * 2


def large_messages() -> list[tuple[float, int]]:
    """The formula's bytes and the kernel's, of an all-reduce and an all-gather."""
    result = []
    for collective in (comm.all_reduce_sum, comm.all_gather):
        with counted() as found:
            dist.barrier()
            before = bytes_sent()
            collective(torch.ones(2**18))
            dist.barrier()
            after = bytes_sent()
        (call,) = [c for c in found if c.operation != "barrier"]
        result.append((call.sent(dist.get_world_size()), after - before))
    return result


@pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_ring_sends_what_the_formula_says(world_size: int) -> None:
    for rank in run_ranks(large_messages, world_size):
        for formula, kernel in rank:
            assert formula <= kernel < 1.01 * formula  # headers of messages and a barrier


def two_steps(folder: str, count: bool) -> dict[str, torch.Tensor]:
    choices = ("launch.processes=2", "max_steps=2", "hooks.knn_probe=null")
    trainer = tiny_trainer(Path(folder), *choices)
    if count:
        with counted():
            trainer.fit()
    else:
        trainer.fit()
    return state_of(trainer)


@pytest.mark.slow
def test_counting_changes_no_bit(tmp_path: Path) -> None:
    plain = run_ranks(two_steps, 2, str(tmp_path / "plain"), False)
    listened = run_ranks(two_steps, 2, str(tmp_path / "counted"), True)
    for ours, theirs in zip(listened, plain, strict=True):
        assert not different(ours, theirs)
