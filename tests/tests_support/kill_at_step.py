"""A plugin: a hook that kills its own process with SIGKILL after a given step, once."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlabeled.distributed import comm
from unlabeled.hooks.base import Hook
from unlabeled.registry import register


@register("hook", "kill_at_step")
class KillAtStep(Hook):
    """SIGKILL this process after the optimizer step `steps[i]`, the i-th time it is started.

    `when` says whether it dies before or after the other hooks of the step. The file `memory`
    counts the deaths. Only rank `rank` dies.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """When to die."""

        steps: list[int]
        """Steps to die at, one per start."""
        memory: str
        """File that counts the deaths."""
        rank: int = 0
        """Rank that dies."""

    def after_step(self, trainer: Any, record: dict[str, Any]) -> None:
        """Die if it is time."""
        memory = Path(self.config.memory)
        deaths = len(memory.read_text()) if memory.exists() else 0
        mine = comm.rank() == self.config.rank
        if mine and deaths < len(self.config.steps) and trainer.step >= self.config.steps[deaths]:
            memory.write_text("x" * (deaths + 1))
            os.kill(os.getpid(), signal.SIGKILL)
