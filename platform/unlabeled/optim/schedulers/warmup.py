"""What every schedule shares: the base rate, the linear warm-up, and the value past the end."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator
from typing import Literal, Protocol

from unlabeled.config.ranges import at_least, positive
from unlabeled.errors import ConfigError


class WarmupFields(Protocol):
    """The fields that the config of every schedule has."""

    @property
    def lr(self) -> float:
        """Base rate."""

    @property
    def lr_reference_batch_size(self) -> int | None:
        """Batch size that `lr` is meant for; None when `lr` is absolute."""

    @property
    def lr_scaling(self) -> Literal["linear", "sqrt"]:
        """How the rate grows with the batch."""

    @property
    def warmup_epochs(self) -> float:
        """Length of the ramp."""

    @property
    def warmup_start_lr(self) -> float:
        """First rate of the ramp."""


def warmup_problems(fields: WarmupFields) -> Iterator[tuple[str, str]]:
    """Faults of the shared fields."""
    yield from positive(fields, "lr")
    if fields.lr_reference_batch_size is not None and fields.lr_reference_batch_size < 1:
        yield (
            "lr_reference_batch_size",
            f"must be at least 1, got {fields.lr_reference_batch_size}; null means lr is absolute",
        )
    yield from at_least(fields, 0, "warmup_epochs", "warmup_start_lr")


class WarmupSchedule(abc.ABC):
    """A learning rate as a pure function of the step: a linear ramp to the base rate, then a body.

    The ramp has round(warmup_epochs x steps_per_epoch) values, start and base rate included; the
    body starts at its own first value, so the base rate usually appears twice in a row.
    `total_steps` is the planned length of the run; later steps keep the last value.
    A ramp longer than the run raises ConfigError.
    """

    def __init__(
        self, fields: WarmupFields, *, total_steps: int, steps_per_epoch: int, batch_size: int
    ) -> None:
        assert total_steps > 0 and steps_per_epoch > 0, "a run has at least one step"
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        self.warmup_steps = round(fields.warmup_epochs * steps_per_epoch)
        self.warmup_start_lr = fields.warmup_start_lr
        self.base_lr, self._arithmetic = _base_lr(fields, batch_size)
        if self.warmup_steps > total_steps:
            raise ConfigError(
                f"scheduler.warmup_epochs: {fields.warmup_epochs:g} epochs are {self.warmup_steps} "
                f"steps, but the whole run has {total_steps}; shorten the warm-up to at most "
                f"{total_steps / steps_per_epoch:g} epochs or train for longer"
            )

    def __call__(self, step: int) -> float:
        """The rate to use in this step, counted from 0."""
        assert step >= 0, f"steps count from 0, got {step}"
        step = min(step, self.total_steps - 1)
        return self._ramp(step) if step < self.warmup_steps else self.body(step)

    @abc.abstractmethod
    def body(self, step: int) -> float:
        """The rate of a step (counted from the start of the run) after the warm-up."""

    def arithmetic(self) -> str:
        """How the base rate follows from the config, for people: `0.3 x 4096 / 256 = 4.8`."""
        return self._arithmetic

    def _ramp(self, step: int) -> float:
        # numpy.linspace's arithmetic to the last bit, which the official schedules are made of.
        if step and step == self.warmup_steps - 1:
            return self.base_lr
        intervals = max(self.warmup_steps - 1, 1)
        slope = (self.base_lr - self.warmup_start_lr) / intervals
        return self.warmup_start_lr + step * slope


def _base_lr(fields: WarmupFields, batch_size: int) -> tuple[float, str]:
    """The base rate for a global batch size, and how it came about."""
    lr, reference = fields.lr, fields.lr_reference_batch_size
    if reference is None:
        return lr, f"{lr:g} (absolute)"
    if fields.lr_scaling == "sqrt":
        scaled = lr * math.sqrt(batch_size / reference)
        return scaled, f"{lr:g} x sqrt({batch_size} / {reference}) = {scaled:g}"
    scaled = lr * batch_size / reference
    return scaled, f"{lr:g} x {batch_size} / {reference} = {scaled:g}"
