"""The schedule of SwAV and its relatives: half a cosine after a linear warm-up."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from unlabeled.config.ranges import at_least
from unlabeled.optim.schedulers.warmup import WarmupSchedule, warmup_problems
from unlabeled.registry import register


@register("scheduler", "cosine")
class Cosine(WarmupSchedule):
    """Warm-up to the base rate, then half a cosine towards the final rate.

    lr(t) = final + (base - final) (1 + cos(pi t / T)) / 2 for t = 0 .. T-1 steps after the warm-up.
    The base rate appears twice in a row (end of the ramp, t = 0); the final rate is approached and
    not reached. A schedule without warm-up starts at the base rate.
    Reference: Caron et al. 2020, appendix A.1; Loshchilov and Hutter 2017, arXiv 1608.03983.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the schedule."""

        lr: float = 0.3
        """Base rate, for `lr_reference_batch_size` images a step (SwAV: 0.3 per 256)."""
        final_lr: float = 0.0
        """Rate that the cosine ends at, absolute: never scaled (SwAV at batch 4096: 0.0048)."""
        lr_reference_batch_size: int | None = 256
        """Batch size that `lr` is meant for; null: `lr` is absolute, whatever the batch."""
        lr_scaling: Literal["linear", "sqrt"] = "linear"
        """Growth of the base rate with batch_size / lr_reference_batch_size."""
        warmup_epochs: float = 0.0
        """Length of the linear ramp before the schedule proper (SwAV at batch 4096: 10)."""
        warmup_start_lr: float = 0.0
        """First rate of the ramp, absolute: never scaled (SwAV at batch 4096: 0.3)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            yield from warmup_problems(self)
            yield from at_least(self, 0, "final_lr")

    def __init__(
        self, config: Config, *, total_steps: int, steps_per_epoch: int, batch_size: int
    ) -> None:
        super().__init__(
            config, total_steps=total_steps, steps_per_epoch=steps_per_epoch, batch_size=batch_size
        )
        self.final_lr = config.final_lr

    def body(self, step: int) -> float:
        t, length = step - self.warmup_steps, self.total_steps - self.warmup_steps
        cosine = 1 + math.cos(math.pi * t / length)
        return self.final_lr + 0.5 * (self.base_lr - self.final_lr) * cosine
