"""Signals to a command that started processes of its own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from types import FrameType

from unlabeled.errors import Interrupted

FORWARDED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What schedulers send. An interrupt (Ctrl-C) reaches the children without our help."""


@contextmanager
def signals_passed_to(children: Sequence[BaseProcess]) -> Iterator[None]:
    """Within, these signals go to the children, who know what they mean.

    A child may finish its step and save (training), or die of the signal: then so does this
    process, as if it had never forwarded anything. Where Interrupted leaves they are ignored from
    then on, as the process is about to end. Does nothing outside the main thread, to which Python
    delivers all signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def forward(number: int, _: FrameType | None) -> None:
        for child in children:
            if child.is_alive() and child.pid is not None:
                # What the signal interrupted may just have learned of this child's end.
                with suppress(ProcessLookupError):
                    os.kill(child.pid, number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield
    except Interrupted:
        before = dict.fromkeys(FORWARDED, signal.SIG_IGN)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in FORWARDED:
            if any(child.exitcode == -number for child in children):
                os.kill(os.getpid(), number)
