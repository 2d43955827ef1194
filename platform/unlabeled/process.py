"""A process with torch in it begins a second sooner, and ends a second sooner.

Torch brings a million objects. Python looks through them again and again while it imports them, and
takes every one apart when it ends: a third of the time of a command that does little else.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_own = False
"""Whether the process was started for the one thing that it does, and ends with it."""
_status: int | None = None
"""That the process ends with; None as long as its work is not over."""


@contextmanager
def importing() -> Iterator[None]:
    """Imports, without the garbage collector: modules stay, there is nothing to find in them.

    In a process that `will_end_quickly` it does not look at them later either.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if _own:  # elsewhere objects of others would stay for ever as well
            gc.freeze()
        if enabled:
            gc.enable()


def will_end_quickly() -> None:
    """Have this process end without being taken apart, if `ends_with` tells its status.

    Threads are waited for and exit handlers run as ever, but for those that were registered before
    this is called: call it first. What is skipped is `__del__` of objects that are left, and with
    it what they have not written: files are closed by those who open them.
    """
    global _own
    _own = True
    atexit.unregister(_end)
    atexit.register(_end)


def ends_with(status: int) -> None:
    """Say what the process ends with, when nothing but its end is left to do."""
    global _status
    _status = status


def _end() -> None:
    """The first handler registered, so the last that runs."""
    if _status is None or hasattr(sys, "last_value"):  # it ends with an exception nobody caught
        return
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_status)
