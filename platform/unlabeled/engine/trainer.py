"""The training loop: one path for one CPU process, one GPU and many nodes; it knows no method."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from unlabeled.config.schema import ClipScope, PretrainConfig
from unlabeled.data.types import Batch
from unlabeled.distributed.parallel import Parallel
from unlabeled.engine.data import TrainingData
from unlabeled.engine.nonfinite import check_finite
from unlabeled.engine.precision import Precision
from unlabeled.engine.probe_data import ProbeData
from unlabeled.engine.round import Round
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.hooks.base import Hook, Record
from unlabeled.meters.base import Meter
from unlabeled.methods.base import Method, MethodOutput, Passes, Progress
from unlabeled.optim.weight_decay import WeightDecaySchedule


@dataclass(frozen=True)
class LoopSettings:
    """The engine's own numbers."""

    last_step: int
    total_steps: int
    steps_per_epoch: int
    round_steps: int
    """Steps between two turns of `after_epoch`: an epoch, or less where one pass is all."""
    batch_size: int
    accumulate_steps: int
    clip_grad_norm: float | None
    clip_grad_scope: ClipScope


class Trainer:
    """Runs a method over its data; everything that differs between runs is handed in."""

    def __init__(
        self,
        *,
        method: Method,
        parallel: Parallel,
        data: TrainingData,
        optimizer: torch.optim.Optimizer,
        scheduler: Callable[[int], float],
        weight_decay: WeightDecaySchedule | None,
        precision: Precision,
        meters: list[Meter],
        hooks: list[Hook],
        run: RunDirectory,
        settings: LoopSettings,
        device: torch.device,
        config: PretrainConfig,
        make_probe_data: Callable[[], ProbeData | str],
    ) -> None:
        self.method, self.data, self.optimizer, self.scheduler = method, data, optimizer, scheduler
        self.weight_decay = weight_decay
        self.precision, self.round, self.hooks = precision, Round(meters), hooks
        self.run, self.settings, self.device = run, settings, device
        self.config, self._make_probe_data = config, make_probe_data
        self.step = 0
        self.parallel = parallel

    @cached_property
    def probe_data(self) -> ProbeData | str:
        """What hooks may measure on, or why there is nothing; made for the first that asks."""
        return self._make_probe_data()

    @property
    def progress(self) -> Progress:
        """Where the run stands."""
        return Progress(self.step, self.settings.steps_per_epoch, self.settings.total_steps)

    def ends_round(self, every: int = 1) -> bool:
        """Whether the last step ended a round whose number is a multiple of `every`."""
        return self.step % (every * self.settings.round_steps) == 0

    def fit(self) -> None:
        """Train from `self.step` (0, or what a checkpoint said) to the last step."""
        try:
            self._fit()
        finally:
            for hook in self.hooks:
                hook.close()

    def _fit(self) -> None:
        self.method.train()
        for hook in self.hooks:
            hook.before_fit(self)
        batches = self.batches()
        while self.step < self.settings.last_step:
            if self.progress.epoch_step == 0:
                self.start_epoch()
            started = time.perf_counter()
            micro_batches = self.fetch(batches)
            waited = time.perf_counter() - started
            for hook in self.hooks:
                hook.images_arrived(self)
            rates = self.set_rates()
            outputs = self.forward_backward(micro_batches)
            means = check_finite(outputs, micro_batches, self.run, self.step)
            self.update()
            self.step += 1
            seconds = time.perf_counter() - started
            self.after_step(self.record(outputs, means, rates, seconds, waited))
        for hook in self.hooks:
            hook.after_fit(self)

    def batches(self) -> Iterator[Batch]:
        """Micro-batches to the last step; those of an epoch that has begun, if the method chooses.

        As a generator it asks for an epoch's order when its first batch is due.
        """
        last_step, steps_per_epoch = self.settings.last_step, self.settings.steps_per_epoch
        if not self.method.chooses_samples:
            yield from self.data.training(self.step, last_step)
            return
        while self.step < last_step:
            end = min(last_step, (self.progress.epoch + 1) * steps_per_epoch)
            order = self.method.epoch_order(self.progress)
            yield from self.data.training(self.step, end, order)

    def start_epoch(self) -> None:
        """Let the method make its codes."""
        passes = Passes(self.data.initial_pass, self.data.central_pass)
        with self.precision.autocast():
            numbers = self.method.start_epoch(self.progress, passes)
        for parameter in self.method.renewed():
            self.optimizer.state.pop(parameter, None)
        if numbers:
            record = {
                "phase": "epoch_start",
                "step": self.step,
                "epoch": self.progress.epoch,
                **numbers,
            }
            for hook in self.hooks:
                hook.epoch_started(self, record)

    def fetch(self, batches: Iterator[Batch]) -> list[Batch]:
        """The micro-batches of one step, on the device; labels only if the method needs them."""
        found = [next(batches) for _ in range(self.settings.accumulate_steps)]
        return found if self.method.needs_labels else [batch.without_labels() for batch in found]

    def set_rates(self) -> dict[str, float]:
        """The schedules' values for this step, written before it as the official code does."""
        rates = {"lr": self.scheduler(self.step)}
        for group in self.optimizer.param_groups:
            group["lr"] = rates["lr"]
        if self.weight_decay is not None:
            rates["weight_decay"] = self.weight_decay.set(self.step)
        return rates

    def forward_backward(self, micro_batches: list[Batch]) -> list[MethodOutput]:
        """Gradients of the mean loss over micro-batches and ranks."""
        with torch.no_grad(), self.precision.autocast():
            self.method.before_step(self.progress, micro_batches)
        self.optimizer.zero_grad(set_to_none=True)
        outputs = []
        for micro_step, batch in enumerate(micro_batches):
            if micro_step < len(micro_batches) - 1:
                with self.parallel.accumulating():
                    outputs.append(self._forward_backward(batch, micro_step))
            else:
                outputs.append(self._forward_backward(batch, micro_step))
        self.parallel.complete_gradients()
        self.method.after_backward(self.progress)
        return outputs

    def _forward_backward(self, batch: Batch, micro_step: int) -> MethodOutput:
        with self.precision.autocast():
            output: MethodOutput = self.parallel(batch, micro_step)
        self.precision.backward(output.loss / self.settings.accumulate_steps)
        return output

    def update(self) -> None:
        """Clip, step the optimizer, and let the method follow."""
        self.precision.unscale(self.optimizer)
        if self.settings.clip_grad_norm is not None:
            self.clip(self.settings.clip_grad_norm)
        self.precision.step(self.optimizer)
        with torch.no_grad():
            self.method.after_update(self.progress)

    def clip(self, max_norm: float) -> None:
        """Limit the norm of the whole gradient, or that of each parameter's."""
        if self.settings.clip_grad_scope == "tensor":
            self.parallel.clip_each_grad(max_norm)
        else:
            self.parallel.clip_grad_norm(max_norm)

    def record(
        self,
        outputs: list[MethodOutput],
        means: dict[str, float],
        rates: dict[str, float],
        seconds: float,
        waited: float,
    ) -> Record:
        """One line of metrics.jsonl; `means` are those over ranks and micro-batches."""
        self.round.add(means["loss"], outputs)
        return {
            "phase": "train",
            "step": self.step,
            "samples": self.step * self.settings.batch_size,
            "epoch": self.step / self.settings.steps_per_epoch,
            **means,
            **rates,
            "img_per_s": self.settings.batch_size / seconds,
            "data_wait": waited / seconds,
        }

    def after_step(self, record: Record) -> None:
        """Tell the hooks; at the end of a round, the meters' numbers too."""
        for hook in self.hooks:
            hook.after_step(self, record)
        if self.ends_round() or self.step == self.settings.last_step:
            self.end_round(record)
        for hook in self.hooks:
            hook.step_done(self)

    def end_round(self, record: Record) -> None:
        """Tell the hooks what the meters gathered since the last round, and begin the next."""
        of_round: Record = {
            "phase": "epoch",
            "step": self.step,
            "samples": record["samples"],
            "epoch": record["epoch"],
            **self.round.numbers(),
        }
        for hook in self.hooks:
            hook.after_epoch(self, of_round)
        if self.ends_round():  # a run that `max_steps` stops goes on within the round
            self.round.reset()
