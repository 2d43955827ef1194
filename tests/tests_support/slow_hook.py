"""A plugin: a hook that makes the first steps take longer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from unlabeled.hooks.base import Hook
from unlabeled.registry import register


@register("hook", "slow_steps")
class SlowSteps(Hook):
    """Sleep after each of the first `steps` steps of a training."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """How often, and how long."""

        steps: int
        seconds: float

    def after_step(self, trainer: Any, record: dict[str, Any]) -> None:
        """Sleep, or not."""
        if trainer.step <= self.config.steps:
            time.sleep(self.config.seconds)
