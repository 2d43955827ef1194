"""The contract of a method: what the engine calls, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from unlabeled.data.types import Batch, ViewSpec
from unlabeled.distributed.rank_rows import RankRows


@dataclass(frozen=True)
class DataFacts:
    """What a method may know about the data before training."""

    num_samples: int
    num_classes: int
    views: tuple[ViewSpec, ...]
    batch_size: int
    """Global batch size, over all ranks and accumulated micro-batches."""
    micro_batch_size: int
    """Images a rank sees in one forward pass."""
    steps_per_epoch: int
    seed: int
    total_steps: int | None = None
    """Length of the run, where it is known; it may be less than an epoch."""


@dataclass(frozen=True)
class Progress:
    """Where the run stands before a step; `epoch` and `epoch_step` follow from `step`."""

    step: int
    steps_per_epoch: int
    total_steps: int

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return self.step // self.steps_per_epoch

    @property
    def epoch_step(self) -> int:
        """Steps finished within the epoch."""
        return self.step % self.steps_per_epoch


@dataclass(frozen=True)
class MethodOutput:
    """One micro-batch's result.

    loss: scalar to differentiate (mean over the rank's rows); scalars: numbers for the log;
    embeddings: detached [N, D] and codes: detached [n, K] (rows sum to 1), for the meters.
    """

    loss: Tensor
    scalars: dict[str, Tensor] = field(default_factory=dict)
    embeddings: Tensor | None = None
    codes: Tensor | None = None


Pass = Callable[[], Iterable[Batch]]
"""One pass over the rank's share of the data, without labels, on the device."""


@dataclass(frozen=True)
class Passes:
    """The ways in which a method may go through the data before an epoch.

    augmented: the first epoch in its order, in training views of their own randomness, as much as
    training sees; central: every image once in the data set's order, in the evaluation view. A rank
    gets as many images as any other of the former, and contiguous shares that differ by at most one
    image of the latter, in rank order.
    """

    augmented: Pass
    central: Pass


class Method(nn.Module):
    """Backbone, parts and state of one way to learn.

    The constructor is `__init__(self, config, *, backbone, head, loss, assigner, facts)`;
    impossible combinations raise ConfigError there. Queues, banks, teachers and prototypes are
    buffers or parameters. All ranks hold the same, but for the buffers named in `rank_buffers`:
    each rank fills those with rows of its own, and RankRows says which. They are stored per rank,
    and a run that continues with another number of ranks divides their rows anew, so nothing else
    in them and in the other buffers may depend on that number.

    The engine calls, in this order:
    `divide` (where parameters are sharded and some modules `divided`) ->
    `start_epoch` (before the first step of every epoch; not again when resuming inside one) ->
    `renewed` -> `epoch_order` (for methods that choose; again when resuming inside an epoch) ->
    `before_step` (once a step, with all micro-batches) -> `forward` (each micro-batch) ->
    backward -> `after_backward` -> optimizer -> `after_update`.
    Nothing but the optimizer changes the backbone's parameters: they may be read until its step.
    """

    parts: ClassVar[frozenset[str]] = frozenset({"head", "loss"})
    """The config slots that the method takes: of head, loss, assigner."""
    needs_labels: ClassVar[bool] = False
    """Whether batches keep their labels; a self-supervised method never sees any."""

    needs_epochs: ClassVar[bool] = False
    """Whether it learns from what it saw an epoch ago, so that one pass over the data is none."""

    chooses_samples: ClassVar[bool] = False
    """Whether `epoch_order` says which samples an epoch has, in place of the config's sampler."""

    backbone: nn.Module
    head: nn.Module
    facts: DataFacts
    rank_buffers: Mapping[str, RankRows] = MappingProxyType({})
    whole: ClassVar[tuple[str, ...]] = ()
    """Modules of which every rank keeps all parameters where others are sharded: those that are
    read or written outside of their own forward pass, such as `head.prototypes`."""
    divided: ClassVar[tuple[str, ...]] = ()
    """Modules too large to be gathered: where others are sharded, every rank keeps its own rows of
    their parameters of two dimensions and more, and computes with these alone. Ranks may then see
    images of different kinds, so batch normalisation must span all of them."""
    evaluated: ClassVar[str] = "backbone"
    """The submodule that the run is for, which exports hold and benchmarks measure; of a method
    whose teacher is better than its student, `teacher.backbone`."""

    def divide(self) -> None:
        """Called once, by all ranks together, where the modules `divided` are being divided.

        Nobody else averages their gradients from then on: when `after_backward` is over, those of
        this rank's rows are means over ranks. ConfigError where so many ranks cannot divide them.
        """

    def start_epoch(self, progress: Progress, passes: Passes) -> dict[str, float]:
        """Prepare an epoch; returns numbers for the log. `passes` read the data."""
        return {}

    def renewed(self) -> Iterable[nn.Parameter]:
        """Parameters that the last `start_epoch` began anew: the optimizer forgets their past."""
        return ()

    def epoch_order(self, progress: Progress) -> np.ndarray:
        """The samples of this epoch over all ranks, int64 [steps_per_epoch x batch_size or more].

        Each step takes the next `batch_size` positions: for every micro-batch one contiguous share
        per rank. Equal on all ranks, and a function of the epoch and of what a checkpoint holds.
        """
        raise NotImplementedError(f"{type(self).__name__} must define epoch_order")

    def before_step(self, progress: Progress, micro_batches: Sequence[Batch]) -> None:
        """Called under no_grad before the forward passes of a step."""

    def forward(self, batch: Batch, micro_step: int) -> MethodOutput:
        """Loss of one micro-batch; `micro_step` counts within the accumulated step."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def after_backward(self, progress: Progress) -> None:
        """Called when gradients are complete (averaged over ranks), before clipping."""

    def after_update(self, progress: Progress) -> None:
        """Called under no_grad after the optimizer step."""

    def derived_numbers(self) -> dict[str, str]:
        """Numbers of the method that follow from config and data, with their arithmetic."""
        return {}

    def encode(self, images: Tensor) -> Tensor:
        """Features [B, feature_dim] of normalised images [B, 3, h, w]."""
        features: Tensor = self.evaluated_backbone(images)
        return features

    @property
    def evaluated_backbone(self) -> nn.Module:
        """The module that `evaluated` names."""
        return self.get_submodule(self.evaluated)
