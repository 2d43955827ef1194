"""A plugin: a hook in which one rank hangs, as on a file system that no longer answers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from unlabeled.distributed import comm
from unlabeled.hooks.base import Hook
from unlabeled.registry import register


@register("hook", "stuck_rank")
class StuckRank(Hook):
    """Never come back from the end of a step."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """When, and which rank."""

        step: int
        rank: int

    def after_step(self, trainer: Any, record: dict[str, Any]) -> None:
        """Hang."""
        if (trainer.step, comm.rank()) == (self.config.step, self.config.rank):
            time.sleep(100_000)
