"""Signals reach every process that the command started."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

from unlabeled.launch.signals import signals_passed_to


def test_a_child_that_has_just_ended_keeps_no_signal_from_the_others() -> None:
    """The signal may interrupt the very call that waits for it, between its end and its status."""
    fork = multiprocessing.get_context("fork")
    ended, running = (fork.Process(target=time.sleep, args=(s,), daemon=True) for s in (0, 60))
    for child in (ended, running):
        child.start()
    assert ended.pid is not None
    os.waitpid(ended.pid, 0)
    caught = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: caught.append(number))
    try:
        with signals_passed_to([ended, running]):
            os.kill(os.getpid(), signal.SIGUSR2)
            running.join(timeout=30)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert running.exitcode == -signal.SIGUSR2
    assert caught == [signal.SIGUSR2]
