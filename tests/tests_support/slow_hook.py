"""A plugin: a hook that makes every step take longer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from unlabeled.hooks.base import Hook
from unlabeled.registry import register


@register("hook", "slow_steps")
class SlowSteps(Hook):
    """Sleep after every step."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """How long."""

        seconds: float

    def after_step(self, trainer: Any, record: dict[str, Any]) -> None:
        """Sleep."""
        time.sleep(self.config.seconds)
