"""Worker processes: they obey their parent alone, and never live longer; a killed one is named."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch

from tests_support.loading import Slow, content, contents, steps_of, stream, worker_processes
from unlabeled.data.types import Batch
from unlabeled.errors import EnvironmentProblem

pytestmark = pytest.mark.slow


def started(lent: Iterator[Batch]) -> tuple[tuple[object, ...], list[BaseProcess]]:
    """The first batch of a stream, and the processes that reading it started."""
    before = set(multiprocessing.active_children())
    first = content(next(lent))
    return first, [child for child in multiprocessing.active_children() if child not in before]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_workers_leave_signals_to_the_parent(number: signal.Signals) -> None:
    lent = stream(steps_of(Slow()), range(8), 2, "processes", prefetch=1)
    first, workers = started(lent)
    assert len(workers) == 2
    # From a process that is not the parent, as a terminal or a scheduler would.
    subprocess.run(["kill", f"-{number}", *(str(worker.pid) for worker in workers)], check=True)
    assert [first, *map(content, lent)] == contents(steps_of(Slow()), range(8))


def test_workers_end_when_the_parent_says_so() -> None:
    lent = stream(steps_of(Slow()), range(40), 2, "processes", prefetch=1)
    _, workers = started(lent)
    workers[0].terminate()
    workers[0].join(timeout=5)
    assert workers[0].exitcode == 0
    del lent
    assert [worker.exitcode for worker in workers] == [0, 0]


def test_signals_reach_the_parent_as_before() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    lent = stream(steps_of(Slow()), range(40), 2, "processes")
    next(lent)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize("at_rest", [True, False])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_killed_worker_is_named(workers: int, at_rest: bool) -> None:
    lent = stream(steps_of(Slow()), range(10**6), workers, "processes")
    _, children = started(lent)
    victim = children[-1]
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    if at_rest:  # or before anybody can know
        victim.join()
    said = rf"^{victim.name} \(process {victim.pid}\) was killed by SIGKILL; .*out of memory"
    with pytest.raises(EnvironmentProblem, match=said):
        for _ in lent:
            pass
    assert not any(child.is_alive() for child in children)


class Leaving(Slow):
    """Images whose reading ends the process."""

    def image(self, index: int) -> np.ndarray:
        os._exit(7)


def test_a_worker_that_leaves_is_named() -> None:
    with pytest.raises(EnvironmentProblem, match=r"^loader worker \d .* ended with status 7$"):
        contents(steps_of(Leaving()), range(1), 2, "processes")


class Threaded(Slow):
    """Images that say how many threads torch uses."""

    def image(self, index: int) -> np.ndarray:
        return np.full((16, 16, 3), torch.get_num_threads(), dtype=np.uint8)


class Inherited(Slow):
    """A source that nobody could pickle, whose pixels are known at the fork."""

    def __init__(self, value: int) -> None:
        self._read = lambda: np.full((16, 16, 3), value, dtype=np.uint8)

    def image(self, index: int) -> np.ndarray:
        return self._read()


def test_workers_inherit_what_cannot_be_pickled() -> None:
    made = contents(steps_of(Inherited(9)), range(2), 2, "processes")
    assert made == contents(steps_of(Inherited(9)), range(2))
    assert made != contents(steps_of(Inherited(8)), range(2))


def test_a_worker_computes_with_one_thread_of_torch() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        made = contents(steps_of(Threaded()), range(1), 1, "processes")
    finally:
        torch.set_num_threads(threads)
    assert made == contents(steps_of(Inherited(1)), range(1))


ORPHANS = """
import multiprocessing, sys
sys.path[:0] = {path!r}
from tests_support.loading import Slow, steps_of, stream
lent = stream(steps_of(Slow()), range(10**6), 2, "processes")
next(lent)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
{then}
"""


@pytest.mark.parametrize(
    ("then", "seconds"), [("for _ in lent: pass", 0), ("import time; time.sleep(600)", 1)]
)
def test_workers_die_with_a_killed_parent(then: str, seconds: float) -> None:
    """In the middle of work, and when all that may be done ahead is done."""
    code = ORPHANS.format(path=sys.path, then=then)
    pipe = subprocess.PIPE
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True)
    assert parent.stdout is not None and parent.stderr is not None
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert len(workers) == 2
    time.sleep(seconds)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while any(map(running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(running, workers))
    parent.stdout.close()
    assert parent.stderr.read() == ""
    parent.stderr.close()


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_no_descriptor_stays_open() -> None:
    contents(steps_of(Slow()), range(1), 2, "processes")
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        contents(steps_of(Slow()), range(1), 2, "processes")
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize("spare", [4, 8, 15])
def test_workers_that_cannot_be_started_are_an_error_for_people(spare: int) -> None:
    """Where descriptors run out before the fifth worker has its pipes."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.dup(0) for _ in range(100)]  # all the gaps below the highest one
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1 + spare, limits[1]))
    said = r"^loader\.workers: process \d of 5 cannot be started \(Too many open files\)"
    try:
        with pytest.raises(EnvironmentProblem, match=said):
            contents(steps_of(Slow()), range(1), 5, "processes")
        assert not worker_processes()
        assert os.dup(0) == max(held) + 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in (*held, max(held) + 1):
            os.close(descriptor)
