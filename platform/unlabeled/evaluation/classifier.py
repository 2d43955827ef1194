"""A linear classifier on features that no longer change, trained by SGD."""

from __future__ import annotations

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


class Recipe(Protocol):
    """What `fit` reads of a benchmark's config."""

    @property
    def epochs(self) -> int: ...
    @property
    def momentum(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    def learning_rate(self, epoch: int) -> float:
        """The rate of a whole epoch."""


def cosine_rate(lr: float, epoch: int, epochs: int) -> float:
    """lr/2 (1 + cos(pi epoch / epochs)): constant within an epoch; would reach 0 at the end."""
    return lr / 2 * (1 + math.cos(math.pi * epoch / epochs))


def step_rate(lr: float, epoch: int, decay_epochs: Sequence[int], factor: float) -> float:
    """lr times `factor` for every one of `decay_epochs` that has been reached."""
    return lr * factor ** sum(epoch >= reached for reached in decay_epochs)


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
    for epoch in range(recipe.epochs):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate(epoch)
        loss = _train_epoch(classifier, optimizer, feed(epoch))
        if not math.isfinite(loss):
            raise DivergenceError(
                f"the linear classifier's loss became {loss} in epoch {epoch + 1} at learning rate "
                f"{recipe.learning_rate(epoch):g}; lower benchmark.lr, or bring the features to "
                "unit scale with benchmark.normalize_features=standardize"
            )
        log.debug("linear epoch %d/%d: loss %.4f", epoch + 1, recipe.epochs, loss)
        yield classifier


def _train_epoch(
    classifier: nn.Linear, optimizer: torch.optim.SGD, batches: Iterator[tuple[Tensor, Tensor]]
) -> float:
    """One pass; returns the mean loss of its batches."""
    total, count = torch.zeros((), device=classifier.weight.device), 0
    for features, labels in batches:
        loss = F.cross_entropy(classifier(features), labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        total += loss.detach()
        count += 1
    return float(total) / count
