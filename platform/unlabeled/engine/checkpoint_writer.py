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
    """Save every so many steps, samples or epochs, at the end, and on a signal.

    `config` is the top-level `checkpoint` group; its epochs are rounds where the run is shorter
    than one. All ranks write together; batch-norm statistics
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
        at_end = trainer.step == trainer.settings.last_step
        signal = self.interruption.agreed()
        assert self._writer is not None
        if (at_end or signal or self._due(trainer)) and trainer.step != self._saved_step:
            self._saved_step = trainer.step
            same_buffers(trainer.method, trainer.method.rank_buffers)
            self._writer.save(
                trainer.step,
                checkpoint.contents(
                    step=trainer.step,
                    method=trainer.method,
                    optimizer=trainer.optimizer,
                    scaler=trainer.precision.scaler,
                    data=trainer.data.identity,
                    present=trainer.round,
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

    def _due(self, trainer: Trainer) -> bool:
        """Whether the last step completed one of the config's distances."""
        steps, samples, epochs = (
            *(self.config.every_steps, self.config.every_samples),
            self.config.every_epochs,
        )
        if steps and trainer.step % steps == 0:
            return True
        if epochs and trainer.ends_round(epochs):
            return True
        batch = trainer.settings.batch_size
        passed, before = trainer.step * batch, (trainer.step - 1) * batch
        return samples is not None and passed // samples > before // samples

    def after_fit(self, trainer: Trainer) -> None:
        """The run ends when its last checkpoint is in its place."""
        assert self._writer is not None
        self._writer.wait()

    def close(self) -> None:
        """A failure elsewhere does not cost the checkpoint in flight."""
        if self._writer is not None:
            self._writer.close()
