"""When checkpoints are written: always the last thing of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlabeled.config.schema import CheckpointConfig
from unlabeled.distributed.group import same_buffers
from unlabeled.engine import checkpoint
from unlabeled.engine.interruption import Interruption
from unlabeled.errors import Interrupted
from unlabeled.hooks.base import Hook

if TYPE_CHECKING:
    from unlabeled.engine.trainer import Trainer


class CheckpointWriter(Hook):
    """Save every `every_steps` steps, every `every_epochs` epochs, at the end, and on a signal.

    `config` is the top-level `checkpoint` group. All ranks write together; batch-norm statistics
    are those of rank 0. After a signal to one of them (`on_signals`) all raise Interrupted.
    """

    def __init__(self, config: CheckpointConfig, interruption: Interruption) -> None:
        super().__init__(config)
        self.interruption = interruption

    def before_fit(self, trainer: Trainer) -> None:
        """What was just restored needs no saving."""
        self._saved_step = trainer.step

    def step_done(self, trainer: Trainer) -> None:
        """Save if it is time."""
        progress = trainer.progress
        by_step = self.config.every_steps and trainer.step % self.config.every_steps == 0
        by_epoch = (
            self.config.every_epochs
            and progress.epoch_step == 0
            and progress.epoch % self.config.every_epochs == 0
        )
        at_end = trainer.step == trainer.settings.last_step
        signal = self.interruption.agreed()
        if (by_step or by_epoch or at_end or signal) and trainer.step != self._saved_step:
            self._saved_step = trainer.step
            same_buffers(trainer.method, trainer.method.rank_buffers)
            checkpoint.save(
                trainer.run.checkpoints,
                step=trainer.step,
                method=trainer.method,
                optimizer=trainer.optimizer,
                scaler=trainer.precision.scaler,
                keep=self.config.keep,
            )
        if signal and not at_end:
            raise Interrupted(
                f"{signal} after step {trainer.step}, which a checkpoint holds; the same command "
                f"with run.dir={trainer.run.path} continues"
            )
