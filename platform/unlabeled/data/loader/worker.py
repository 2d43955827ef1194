"""The life of a worker process: rows of slots, until its parent says so or vanishes."""

from __future__ import annotations

import os
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection

import torch

from unlabeled.data.loader.rows import Broken, Item, RowBatches
from unlabeled.data.loader.slots import BatchArrays, BatchSlot
from unlabeled.errors import UserError

# Slot, rows of its batch, the item's two numbers, first row of the piece, row behind its last.
JOB = struct.Struct("6q")


class WorkerError(RuntimeError):
    """What went wrong in a worker, as the text of its traceback."""


def serve(
    dataset: RowBatches,
    slots: Sequence[BatchSlot],
    jobs: int,
    parents_end: int,
    results: Connection,
) -> None:
    """Fill pieces of batches; for each, send (slot, rows, broken by row, errors by row)."""
    parent = os.getppid()
    _leave_signals_to(parent)
    os.close(parents_end)  # or the pipe would not end with the parent
    torch.set_num_threads(1)
    while len(message := os.read(jobs, JOB.size)) == JOB.size:
        number, rows, first_number, second_number, first, end = JOB.unpack(message)
        item, arrays = (first_number, second_number), slots[number].arrays(rows)
        broken: dict[int, Broken] = {}
        errors: dict[int, Exception] = {}
        for row in range(first, end):
            if os.getppid() != parent:
                return
            outcome = _outcome(dataset, item, arrays, row)
            if isinstance(outcome, Exception):
                errors[row] = outcome
            elif outcome:
                broken[row] = outcome
        try:
            results.send((number, end - first, broken, errors))
        except BrokenPipeError:  # the parent vanished
            return


def _outcome(dataset: RowBatches, item: Item, arrays: BatchArrays, row: int) -> Broken | Exception:
    """What filling a row found broken, or why it failed, as something that can be sent."""
    try:
        return dataset.fill(item, arrays, row)
    except UserError as error:
        return error
    except Exception:  # noqa: BLE001 - raised by the parent, with this text
        return WorkerError(f"in a loader worker:\n{traceback.format_exc()}")


def _leave_signals_to(parent: int) -> None:
    """Leave stopping to the parent: signals of a terminal or a scheduler reach every process.

    The parent decides what an interrupt means (finish the step, write a checkpoint) and needs its
    workers until then, so they obey SIGTERM from nobody else.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGTERM})
        threading.Thread(target=_await_end, args=(parent,), daemon=True).start()


def _await_end(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
