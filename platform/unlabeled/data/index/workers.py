"""Tasks over processes that end with their parent, however it ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from typing import Any

from unlabeled.errors import EnvironmentProblem


def in_processes(
    function: Callable[..., object], tasks: Sequence[tuple[Any, ...]], workers: int
) -> Iterator[int]:
    """Call `function(*task)` for all tasks, and count those that are done.

    The first error ends it. EnvironmentProblem if a process was killed.
    """
    workers = min(workers, len(tasks))
    if workers < 2:
        for done, task in enumerate(tasks, start=1):
            function(*task)
            yield done
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent)
    try:
        futures = [pool.submit(function, *task) for task in tasks]
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            yield done
    except BrokenProcessPool as error:
        raise EnvironmentProblem(
            "a process died, perhaps for want of memory; start again with fewer --workers: what "
            "is done is kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A process of a parent that was killed would wait for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends us
    parent = parent_process()
    assert parent is not None
    threading.Thread(target=_leave_after, args=(parent.sentinel,), daemon=True).start()


def _leave_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
