"""When checkpoints are written: always the last thing of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlabeled.config.schema import CheckpointConfig
from unlabeled.distributed.group import same_buffers
from unlabeled.engine import checkpoint
from unlabeled.engine.background_writer import BackgroundWriter
from unlabeled.engine.interruption import Interruption
from unlabeled.errors import Interrupted
from unlabeled.hooks.base import Hook

if TYPE_CHECKING:
    from unlabeled.engine.trainer import Trainer


class CheckpointWriter(Hook):
    """Save every `every_steps` steps, every `every_epochs` epochs, at the end, and on a signal.

    `config` is the top-level `checkpoint` group. All ranks write together; batch-norm statistics
    are those of rank 0. With `background` the run stands still only while the state is copied.
    After a signal to one of the ranks (`on_signals`) all raise Interrupted.
    """

    _writer: BackgroundWriter | None = None

    def __init__(self, config: CheckpointConfig, interruption: Interruption) -> None:
        super().__init__(config)
        self.interruption = interruption

    def before_fit(self, trainer: Trainer) -> None:
        """What was just restored needs no saving; what was left half written goes."""
        self._saved_step = trainer.step
        self._writer = BackgroundWriter(
            trainer.run.checkpoints,
            trainer.optimizer,
            later=checkpoint.changed_by_step(trainer.method),
            keep=self.config.keep,
        )

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
        assert self._writer is not None
        if (by_step or by_epoch or at_end or signal) and trainer.step != self._saved_step:
            self._saved_step = trainer.step
            same_buffers(trainer.method, trainer.method.rank_buffers)
            self._writer.save(
                trainer.step,
                checkpoint.contents(
                    step=trainer.step,
                    method=trainer.method,
                    optimizer=trainer.optimizer,
                    scaler=trainer.precision.scaler,
                ),
            )
            if not self.config.background:
                self._writer.wait()
        if signal and not at_end:
            self._writer.wait()
            raise Interrupted(
                f"{signal} after step {trainer.step}, which a checkpoint holds; the same command "
                f"with run.dir={trainer.run.path} continues"
            )

    def after_fit(self, trainer: Trainer) -> None:
        """The run ends when its last checkpoint is in its place."""
        assert self._writer is not None
        self._writer.wait()

    def close(self) -> None:
        """A failure elsewhere does not cost the checkpoint in flight."""
        if self._writer is not None:
            self._writer.close()
