"""metrics.jsonl: what happened at every step, for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlabeled.config.ranges import at_least
from unlabeled.distributed import comm
from unlabeled.engine.run_directory import LineWriter
from unlabeled.hooks.base import Hook, Record
from unlabeled.registry import register

if TYPE_CHECKING:
    from unlabeled.engine.trainer import Trainer


@register("hook", "metrics_log")
class MetricsLog(Hook):
    """Append every record to metrics.jsonl, one JSON object a line.

    Only rank 0 writes; losses in a record are already means over ranks. Floats keep all their
    digits, so two runs can be compared bit for bit. A step repeated after a resume is written
    again; of equal (phase, step) the last line counts.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """How often."""

        every_steps: int = 1
        """Training records are written every so many steps; epoch records always."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            yield from at_least(self, 1, "every_steps")

    _writer: LineWriter | None = None

    def before_fit(self, trainer: Trainer) -> None:
        """Open the file."""
        if comm.rank() == 0:
            self._writer = LineWriter(trainer.run.metrics_file)

    def epoch_started(self, trainer: Trainer, record: Record) -> None:
        """Write the method's numbers."""
        self._write(record)

    def after_step(self, trainer: Trainer, record: Record) -> None:
        """Write a training record."""
        if (
            trainer.step % self.config.every_steps == 0
            or trainer.step == trainer.settings.last_step
        ):
            self._write(record)

    def after_epoch(self, trainer: Trainer, record: Record) -> None:
        """Write the epoch's meters and probes."""
        self._write(record)

    def after_fit(self, trainer: Trainer) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, record: Record) -> None:
        if self._writer is not None:
            self._writer.write(record)
