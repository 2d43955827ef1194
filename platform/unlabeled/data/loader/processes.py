"""Slots filled by worker processes, for transforms that hold the GIL: only row numbers travel."""

from __future__ import annotations

import multiprocessing
import os
import selectors
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess

from unlabeled.data.loader.crew import Crew, Filling, begun
from unlabeled.data.loader.rows import Broken, Item, RowBatches
from unlabeled.data.loader.slots import BatchArrays, BatchSlot
from unlabeled.data.loader.worker import JOB, serve
from unlabeled.errors import EnvironmentProblem

# Pieces of a batch per worker: small enough that workers finish together, large enough that the
# messages (about 20 us each) are nothing beside the images.
PIECES = 4
# A worker ends within milliseconds; one that does not is stuck in a system call.
END_SECONDS = 5.0


@dataclass(frozen=True)
class _Worker:
    process: ForkProcess
    results: Connection


class Processes(Crew):
    """Forked workers that take pieces of batches from one pipe and write rows into shared slots.

    The workers inherit data set and slots as they are, so nothing needs to be picklable. A pipe of
    messages of one length, far below PIPE_BUF, needs no lock that a killed worker could hold: reads
    and writes are whole. EnvironmentProblem when a worker cannot be started, or was killed.
    """

    def __init__(self, dataset: RowBatches, slots: Sequence[BatchSlot], count: int) -> None:
        self._dataset = dataset
        self._begun: dict[int, Filling] = {}
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        jobs, self._jobs = os.pipe()
        try:
            with _signals_held_back():
                for number in range(count):
                    self._start(number, slots, jobs)
        except OSError as error:
            self.close()
            raise EnvironmentProblem(
                f"loader.workers: process {len(self._workers) + 1} of {count} cannot be started "
                f"({error.strerror}); ask for fewer"
            ) from error
        finally:
            os.close(jobs)

    def _start(self, number: int, slots: Sequence[BatchSlot], jobs: int) -> None:
        context = multiprocessing.get_context("fork")
        results, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=serve,
            args=(self._dataset, slots, jobs, self._jobs, sender),
            name=f"loader worker {number}",
            daemon=True,
        )
        process.start()
        sender.close()  # or the end of the worker would not be the end of its results
        self._workers.append(_Worker(process, results))
        self._selector.register(results, selectors.EVENT_READ, self._workers[-1])

    def begin(self, slot: BatchSlot, item: Item) -> None:
        filling = Filling(begun(self._dataset, slot, item))
        self._begun[slot.number] = filling
        rows = filling.missing
        piece = -(-rows // (PIECES * len(self._workers)))
        for first in range(0, rows, piece):
            job = JOB.pack(slot.number, rows, *item, first, min(first + piece, rows))
            try:
                os.write(self._jobs, job)
            except BrokenPipeError as error:  # nobody is left to read it
                raise EnvironmentProblem(_epitaph(self._workers[0].process)) from error

    def finish(self, slot: BatchSlot) -> tuple[BatchArrays, Broken]:
        while self._begun[slot.number].missing:
            for key, _ in self._selector.select():
                self._take(key.data)
        return self._begun.pop(slot.number).result()

    def _take(self, worker: _Worker) -> None:
        try:
            number, rows, broken, errors = worker.results.recv()
        except (EOFError, OSError) as error:
            raise EnvironmentProblem(_epitaph(worker.process)) from error
        filling = self._begun[number]
        filling.missing -= rows
        filling.broken.update(broken)
        filling.errors.update(errors)

    def close(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(END_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.results.close()
        self._selector.close()
        os.close(self._jobs)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Until a new worker has made up its mind, no signal may reach the handlers it inherited."""
    if sys.platform != "linux":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _epitaph(process: ForkProcess) -> str:
    process.join(END_SECONDS)
    code = process.exitcode
    end = f"ended with status {code}"
    if code is not None and code < 0:
        end = f"was killed by {signal.Signals(-code).name}"
    if code == -signal.SIGKILL:
        end += "; the machine may be out of memory: lower loader.workers"
    return f"{process.name} (process {process.pid}) {end}"
