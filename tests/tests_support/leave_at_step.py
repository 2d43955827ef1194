"""A plugin: a hook that ends the run with an error after a given step, on one rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import unlabeled.errors
from unlabeled.distributed import comm
from unlabeled.hooks.base import Hook
from unlabeled.registry import register

ERRORS = {
    "crash": ZeroDivisionError,
    "keyboard": KeyboardInterrupt,
    "Interrupted": unlabeled.errors.Interrupted,
    "DivergenceError": unlabeled.errors.DivergenceError,
}


@register("hook", "leave_at_step")
class LeaveAtStep(Hook):
    """Raise `error` with the message `because` on rank `rank` after the optimizer step `step`."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """When and how."""

        step: int
        error: str
        because: str = ""
        rank: int = 0

    def after_step(self, trainer: Any, record: dict[str, Any]) -> None:
        """Leave if it is time."""
        if trainer.step == self.config.step and comm.rank() == self.config.rank:
            raise ERRORS[self.config.error](self.config.because)
