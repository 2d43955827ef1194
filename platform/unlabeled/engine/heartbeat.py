"""A rank that died, stands still or is stuck is named, and the job ends instead of hanging."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlabeled import activity
from unlabeled.distributed import comm
from unlabeled.distributed.mailbox import Mailbox
from unlabeled.hooks.base import Hook, Record

if TYPE_CHECKING:
    from unlabeled.engine.trainer import Trainer

log = logging.getLogger(__name__)
PHASES = ("computes", "evaluates after", "saves or waits for images after")


@dataclass(frozen=True)
class Beat:
    """What a rank says of itself: that its process runs, and how far it is."""

    count: int
    step: int
    phase: int
    host: str
    work: int = 0
    """What it has done, which grows within a phase, too."""

    @property
    def progress(self) -> tuple[int, int]:
        """Grows with every phase."""
        return self.step, self.phase

    def told(self, rank: int) -> str:
        """For people."""
        return f"rank {rank} on {self.host} {PHASES[self.phase]} step {self.step}"

    def text(self) -> str:
        """As it is sent."""
        return f"{self.count} {self.step} {self.phase} {self.work} {self.host}"

    @staticmethod
    def read(text: str) -> Beat:
        """The inverse of `text`."""
        count, step, phase, work, host = text.split(" ", 4)
        return Beat(int(count), int(step), int(phase), host, int(work))


class Watch:
    """Compares the beats of all ranks with those of before; rank 0 keeps it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._beats: dict[int, Beat] = {}
        self._beat_at: dict[int, float] = {}
        self._progress_at = 0.0

    def verdict(self, beats: Sequence[Beat], now: float) -> str | None:
        """Who is to blame if a rank is silent, or all stand still, for `seconds`; else None."""
        for rank, beat in enumerate(beats):
            before = self._beats.get(rank)
            if before is None or before.count != beat.count:
                self._beat_at[rank] = now
            if before is None or (before.progress, before.work) != (beat.progress, beat.work):
                self._progress_at = now
            self._beats[rank] = beat
        silent = [rank for rank in self._beats if now - self._beat_at[rank] > self.seconds]
        if silent:
            return self._blame(silent, "gave no sign of life")
        if now - self._progress_at > self.seconds:
            least = min(beat.progress for beat in beats)
            behind = [rank for rank, beat in self._beats.items() if beat.progress == least]
            return self._blame(behind, "made no progress, and the others wait")
        return None

    def _blame(self, ranks: Sequence[int], what: str) -> str:
        told = "; ".join(self._beats[rank].told(rank) for rank in ranks[:8])
        more = f" (and {len(ranks) - 8} more)" if len(ranks) > 8 else ""
        return f"{what} for {self.seconds:g} s: {told}{more}"


class Heartbeat(Hook):
    """Every rank says how far it is; when one is silent or all stand still, rank 0 ends the job.

    `seconds`: the launcher's `timeout_seconds`. A rank that is handed batches or takes part in
    collectives does not stand still, however long an epoch's clusters take. Nothing of this takes
    part in the training: a thread sends and compares small texts through the store in which the
    processes found each other.
    """

    def __init__(self, seconds: float, mailbox: Mailbox) -> None:
        super().__init__(None)
        self.seconds, self.mailbox = seconds, mailbox
        self.interval = min(5.0, seconds / 4)
        self._progress = (0, 0)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def before_fit(self, trainer: Trainer) -> None:
        """Start to beat."""
        self._progress = (trainer.step, 2)
        self._beat(0)
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def images_arrived(self, trainer: Trainer) -> None:
        """A step begins to compute."""
        self._progress = (trainer.step + 1, 0)

    def after_step(self, trainer: Trainer, record: Record) -> None:
        """It has computed."""
        self._progress = (trainer.step, 1)

    def step_done(self, trainer: Trainer) -> None:
        """It was evaluated."""
        self._progress = (trainer.step, 2)

    def after_fit(self, trainer: Trainer) -> None:
        """From here on ranks part."""
        self.close()

    def close(self) -> None:
        """Stop beating."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _beat(self, count: int) -> None:
        beat = Beat(count, *self._progress, socket.gethostname(), activity.amount())
        self.mailbox.send(beat.text())

    def _run(self) -> None:
        watch, count = Watch(self.seconds), 0
        while not self._stop.wait(self.interval):
            count += 1
            try:
                self._beat(count)
                texts = self.mailbox.read_all() if comm.rank() == 0 else []
            except RuntimeError:  # rank 0, which holds the store, is gone: collectives say so
                return
            beats = [Beat.read(text) for text in texts if text is not None]
            if len(beats) == comm.world_size():
                verdict = watch.verdict(beats, time.monotonic())
                if verdict is not None:
                    self._end(verdict)

    def _end(self, verdict: str) -> None:
        """The main thread may hang in a collective for ever: end the process under it."""
        log.error("%s; the job ends here, its last checkpoint is kept", verdict)
        os._exit(1)
