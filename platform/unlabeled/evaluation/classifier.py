"""A linear classifier on features that no longer change, trained by SGD."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlabeled.errors import DivergenceError

log = logging.getLogger(__name__)

Feed = Callable[[int], Iterator[tuple[Tensor, Tensor]]]
"""The batches of an epoch: features [B, D] and labels [B], over all ranks, on the device."""


Loss = Callable[[Tensor, Tensor], Tensor]
"""The scalar to minimise on a batch of features [B, D] with labels [B]."""


class Schedule(Protocol):
    """What `descend` reads of a benchmark's config."""

    @property
    def epochs(self) -> int: ...
    def learning_rate(self, epoch: int) -> float:
        """The rate of a whole epoch."""


class Recipe(Schedule, Protocol):
    """What `fit` reads of a benchmark's config."""

    @property
    def momentum(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


def cosine_rate(lr: float, epoch: int, epochs: int) -> float:
    """lr/2 (1 + cos(pi epoch / epochs)): constant within an epoch; would reach 0 at the end."""
    return lr / 2 * (1 + math.cos(math.pi * epoch / epochs))


def step_rate(lr: float, epoch: int, decay_epochs: Sequence[int], factor: float) -> float:
    """lr times `factor` for every one of `decay_epochs` that has been reached."""
    return lr * factor ** sum(epoch >= reached for reached in decay_epochs)


def inverse_root_rate(lr: float, weight_decay: float, step: int) -> float:
    """lr / sqrt(1 + lr weight_decay step): DeepCluster's, of a step counted from the first."""
    return lr / math.sqrt(1 + lr * weight_decay * step)


def fit(
    feed: Feed,
    recipe: Recipe,
    *,
    feature_dim: int,
    num_classes: int,
    seed: int,
    device: torch.device,
) -> Iterator[nn.Linear]:
    """Train a linear classifier with cross-entropy, and yield it after every epoch.

    Weight N(0, 0.01), bias 0 (SwAV eval_linear.py); SGD decays both. A pure function of its
    arguments: the weights come from `seed`, the order from `feed`. Every rank takes the same step
    on the whole batch, so ranks agree without communication. DivergenceError once a loss is not
    finite.
    """
    # Made without the default initialisation, which would draw from the global generator.
    classifier = nn.Linear(feature_dim, num_classes, device="meta").to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        classifier.weight.normal_(0, 0.01, generator=generator)
        classifier.bias.zero_()
    classifier.to(device)
    # The rate is set before every epoch; 0 is never used.
    optimizer = torch.optim.SGD(
        classifier.parameters(), lr=0.0, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    remedy = "bring the features to unit scale with benchmark.normalize_features=standardize"

    def loss(features: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(classifier(features), labels)

    for _ in descend(feed, recipe, optimizer, loss, remedy=remedy):
        yield classifier


def descend(
    feed: Feed,
    schedule: Schedule,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    *,
    remedy: str,
    step_rate: Callable[[int], float] | None = None,
) -> Iterator[int]:
    """Take a step on the loss of every batch, and yield the epoch after each.

    The rate of all parameters is the schedule's, or `step_rate` of the step, counted from the
    first of all. DivergenceError once the mean loss of an epoch is
    not finite, with the `remedy` beside a lower rate. Ranks that are fed the same take the same
    steps.
    """
    steps = itertools.count()
    for epoch in range(schedule.epochs):
        constant = schedule.learning_rate(epoch)
        rates = (constant if step_rate is None else step_rate(step) for step in steps)
        mean = _train_epoch(optimizer, loss, feed(epoch), rates)
        if not math.isfinite(mean):
            raise DivergenceError(
                f"the linear classifier's loss became {mean} in epoch {epoch + 1} at learning rate "
                f"{schedule.learning_rate(epoch):g}; lower benchmark.lr, or {remedy}"
            )
        log.debug("linear epoch %d/%d: loss %.4f", epoch + 1, schedule.epochs, mean)
        yield epoch


def _train_epoch(
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    batches: Iterator[tuple[Tensor, Tensor]],
    rates: Iterator[float],
) -> float:
    """One pass; returns the mean loss of its batches."""
    losses = []
    for features, labels in batches:
        rate = next(rates)
        for group in optimizer.param_groups:
            group["lr"] = rate
        value = loss(features, labels)
        optimizer.zero_grad()
        torch.autograd.backward(value)
        optimizer.step()
        losses.append(value.detach())
    return float(torch.stack(losses).mean())
