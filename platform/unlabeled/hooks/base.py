"""The contract of a hook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlabeled.engine.trainer import Trainer

Record = dict[str, Any]
"""One line of metrics.jsonl; hooks may add numbers to it."""


class Hook:
    """Something that happens around the training step; the constructor is `__init__(self, config)`.

    Hooks are called in the order of the config on every rank, so they may communicate. They change
    neither the weights nor the global random generators. The order of a step is
    `images_arrived` -> `after_step` -> (at the end of a round, which is an epoch unless the run is
    shorter or `round_samples` says otherwise) `after_epoch` -> `step_done`, each for all hooks.
    """

    def __init__(self, config: Any) -> None:
        self.config = config

    def before_fit(self, trainer: Trainer) -> None:
        """Once, when everything is built and restored."""

    def epoch_started(self, trainer: Trainer, record: Record) -> None:
        """When the method made new codes for an epoch; `record` holds their numbers."""

    def images_arrived(self, trainer: Trainer) -> None:
        """A step has its images and begins to compute."""

    def after_step(self, trainer: Trainer, record: Record) -> None:
        """After an optimizer step."""

    def after_epoch(self, trainer: Trainer, record: Record) -> None:
        """After the last step of an epoch (or round of one); `record` holds the meters."""

    def step_done(self, trainer: Trainer) -> None:
        """Everything about this step is done and recorded: the state may be saved."""

    def after_fit(self, trainer: Trainer) -> None:
        """Once, when the run reached its end."""

    def close(self) -> None:
        """Once, however the run ended; its other ranks may be elsewhere, so nothing collective."""
