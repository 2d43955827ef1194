"""What the benchmarks that train by SGD have in common: ranges of their settings, and the rates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

from unlabeled.config.ranges import at_least, positive
from unlabeled.evaluation.classifier import cosine_rate, step_rate
from unlabeled.evaluation.training_views import view_problems
from unlabeled.registry import Component


class SGDSettings(Protocol):
    """What is read of a benchmark's config."""

    @property
    def epochs(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def lr(self) -> float: ...
    @property
    def lr_reference_batch_size(self) -> int | None: ...
    @property
    def momentum(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def schedule(self) -> Literal["cosine", "step", "inverse_root"]: ...
    @property
    def decay_epochs(self) -> list[int]: ...
    @property
    def decay_factor(self) -> float: ...
    @property
    def train_transform(self) -> Component | None: ...


def sgd_problems(settings: SGDSettings, *, nesterov: bool = False) -> Iterator[tuple[str, str]]:
    """Ranges, and the number of training views."""
    yield from positive(settings, "epochs", "batch_size", "lr", "decay_factor")
    if settings.lr_reference_batch_size is not None and settings.lr_reference_batch_size < 1:
        yield (
            "lr_reference_batch_size",
            f"must be at least 1 or null, got {settings.lr_reference_batch_size}",
        )
    if not 0 <= settings.momentum < 1:
        yield "momentum", f"must be in [0, 1), got {settings.momentum}"
    if nesterov and settings.momentum == 0:
        yield "nesterov", "needs momentum > 0, got momentum 0; set nesterov=false"
    yield from at_least(settings, 0, "weight_decay")
    yield from view_problems("train_transform", settings.train_transform)


def epoch_rate(settings: SGDSettings, lr: float, epoch: int) -> float:
    """The rate of a whole epoch that begins as `lr`, which is of the reference batch size."""
    if settings.lr_reference_batch_size is not None:
        lr *= settings.batch_size / settings.lr_reference_batch_size
    if settings.schedule == "cosine":
        return cosine_rate(lr, epoch, settings.epochs)
    if settings.schedule == "inverse_root":
        return lr  # what falls step by step, not by epochs
    return step_rate(lr, epoch, settings.decay_epochs, settings.decay_factor)
