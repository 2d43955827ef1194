"""A rate that falls by a factor at given epochs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from unlabeled.optim.schedulers.warmup import WarmupSchedule, warmup_problems
from unlabeled.registry import register


@register("scheduler", "step")
class Step(WarmupSchedule):
    """Warm-up to the base rate, which is multiplied by gamma at every milestone.

    lr = base gamma^(milestones passed); a milestone counts from the start of the run, warm-up
    included, and takes effect in its first step.
    Reference: Caron et al. 2020, appendix A.5 (linear classification), and torch's MultiStepLR.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the schedule."""

        lr: float = 0.01
        """Base rate, for `lr_reference_batch_size` images a step (SwAV: 0.3 per 256)."""
        milestones_epochs: list[float] = field(default_factory=lambda: [60.0, 80.0])
        """Epochs after which the rate falls, ascending (MoCo's linear probe: 60, 80)."""
        gamma: float = 0.1
        """Factor at each milestone."""
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
            if self.gamma <= 0:
                yield "gamma", f"must be positive, got {self.gamma}; 0.1 is usual"
            if self.milestones_epochs != sorted(set(self.milestones_epochs)):
                yield "milestones_epochs", f"must ascend, got {self.milestones_epochs}"

    def __init__(
        self, config: Config, *, total_steps: int, steps_per_epoch: int, batch_size: int
    ) -> None:
        super().__init__(
            config, total_steps=total_steps, steps_per_epoch=steps_per_epoch, batch_size=batch_size
        )
        self.gamma = config.gamma
        self.milestones = [round(epoch * steps_per_epoch) for epoch in config.milestones_epochs]

    def body(self, step: int) -> float:
        passed = sum(step >= milestone for milestone in self.milestones)
        return self.base_lr * self.gamma**passed
