"""One rate for the whole run, after an optional warm-up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from unlabeled.optim.schedulers.warmup import WarmupSchedule, warmup_problems
from unlabeled.registry import register


@register("scheduler", "constant")
class Constant(WarmupSchedule):
    """Warm-up to the base rate, which then stays: for runs whose length is not known in advance.

    lr = base.
    Reference: the constant rate of SEER's RegNetY-128GF run, Goyal et al. 2021, arXiv 2103.01988.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the schedule."""

        lr: float = 0.3
        """Base rate, for `lr_reference_batch_size` images a step (SwAV: 0.3 per 256)."""
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

    def __init__(
        self, config: Config, *, total_steps: int, steps_per_epoch: int, batch_size: int
    ) -> None:
        super().__init__(
            config, total_steps=total_steps, steps_per_epoch=steps_per_epoch, batch_size=batch_size
        )

    def body(self, step: int) -> float:
        return self.base_lr
