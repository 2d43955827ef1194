"""A hook that sends signals to processes of its run, at a chosen moment of a step."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any, Literal

from unlabeled.distributed import comm
from unlabeled.hooks.base import Hook


class SignalAtStep(Hook):
    """Send `signals` after step `step`: in the order of the hooks, so before or after a probe.

    Sent to rank `rank` alone, or (`group`) to every process of the group of processes.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """What to send, when and to whom."""

        step: int
        signals: list[str]
        moment: Literal["step", "epoch"] = "step"
        rank: int = 0
        group: bool = False

    def after_step(self, trainer: Any, record: dict[str, Any]) -> None:
        """Send after the optimizer step."""
        self._send_at("step", trainer)

    def after_epoch(self, trainer: Any, record: dict[str, Any]) -> None:
        """Send within the evaluation of an epoch."""
        self._send_at("epoch", trainer)

    def _send_at(self, moment: str, trainer: Any) -> None:
        config = self.config
        if (moment, trainer.step, comm.rank()) == (config.moment, config.step, config.rank):
            for name in config.signals:
                number = signal.Signals[name]
                if config.group:
                    os.killpg(0, number)
                else:
                    os.kill(os.getpid(), number)
