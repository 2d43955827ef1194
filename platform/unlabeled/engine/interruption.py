"""Signals that ask a run to stop: it does so between two steps, on all ranks together."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch

from unlabeled.distributed import comm
from unlabeled.errors import Interrupted


class Interruption:
    """Remembers the last signal of those it watches for.

    A scheduler may signal all processes or one of them, once or again and again, in the middle of a
    step, an evaluation or a checkpoint: nothing is interrupted, only noted.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._number = 0

    @contextmanager
    def watching(self, names: Sequence[str]) -> Iterator[Interruption]:
        """Within, these signals (as SIGTERM) are noted and do nothing else.

        Where Interrupted leaves they are ignored from then on: the process is about to end, and a
        second signal must not cut its last words short. Python delivers signals to the main thread
        alone: in another one nothing is watched.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {name: signal.signal(signal.Signals[name], self._note) for name in names}
        try:
            yield self
        except Interrupted:
            before = dict.fromkeys(names, signal.SIG_IGN)
            raise
        finally:
            for name, handler in before.items():
                signal.signal(signal.Signals[name], handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._number = number

    def agreed(self) -> str | None:
        """The name of a signal that any rank got, the same on all of them; None if none did."""
        number = torch.tensor(self._number, dtype=torch.int32, device=self.device)
        highest = int(comm.all_reduce_max(number))
        return signal.Signals(highest).name if highest else None
