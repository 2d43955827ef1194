"""Progress for people: a line every few seconds and one at the end of every epoch."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unlabeled.config.ranges import at_least
from unlabeled.hooks.base import Hook, Record
from unlabeled.registry import register

if TYPE_CHECKING:
    from unlabeled.engine.trainer import Trainer

log = logging.getLogger(__name__)
SHOWN = ("knn_top1", "feature_std", "rank_me", "prototype_usage", "code_entropy")


@register("hook", "console")
class Console(Hook):
    """Print step, loss, learning rate, images per second, share of time without data, time left.

    Printed on rank 0 and kept in log.txt. The time left extrapolates the speed since the first step
    of this process, which itself prepares much (workers, kernels) and tells none. Changes nothing
    of the training.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """How often."""

        every_seconds: float = 10.0
        """Least time between two progress lines."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            yield from at_least(self, 0, "every_seconds")

    def before_fit(self, trainer: Trainer) -> None:
        """Start the clock."""
        self._printed = time.monotonic()
        self._since: tuple[int, float] | None = None

    def after_step(self, trainer: Trainer, record: Record) -> None:
        """A progress line, if the last one is old enough."""
        now = time.monotonic()
        self._since = self._since or (trainer.step, now)
        if now - self._printed < self.config.every_seconds:
            return
        self._printed = now
        log.info(
            "step %d/%d  epoch %.2f  loss %.4f  lr %.4g  %.0f img/s  data wait %.0f%%%s",
            trainer.step,
            trainer.settings.last_step,
            record["epoch"],
            record["loss"],
            record["lr"],
            record["img_per_s"],
            100 * record["data_wait"],
            _time_left(trainer, *self._since, now),
        )

    def after_epoch(self, trainer: Trainer, record: Record) -> None:
        """The epoch's probe and health numbers."""
        shown = "  ".join(f"{key} {record[key]:.4g}" for key in SHOWN if key in record)
        log.info("epoch %.4g done  loss %.4f  %s", record["epoch"], record["loss"], shown)


def _time_left(trainer: Trainer, first_step: int, started: float, now: float) -> str:
    if trainer.step == first_step:
        return ""
    seconds_a_step = (now - started) / (trainer.step - first_step)
    return f"  {duration(seconds_a_step * (trainer.settings.last_step - trainer.step))} left"


def duration(seconds: float) -> str:
    """`1d 02:03:04`, `2:03:04` or `3:04`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02}:{minute:02}:{second:02}"
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"
