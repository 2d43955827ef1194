"""A copy of the backbone and a linear classifier trained together on labelled images."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlabeled.config.schema import SyncBatchNormConfig
from unlabeled.data.randomness import mix
from unlabeled.data.types import Batch
from unlabeled.distributed import comm
from unlabeled.distributed.batch_norm import convert_sync_batch_norm
from unlabeled.distributed.group import data_parallel, same_buffers
from unlabeled.engine.precision import Precision
from unlabeled.errors import DivergenceError
from unlabeled.evaluation.benchmarks.base import Probe, require_rows
from unlabeled.evaluation.training_views import Views

log = logging.getLogger(__name__)

INITIALISATION = -1
"""In the place of the epoch, where what is drawn is the classifier's first weights."""


class Recipe(Protocol):
    """What `finetune` reads of a benchmark's config."""

    @property
    def epochs(self) -> int: ...
    @property
    def momentum(self) -> float: ...
    @property
    def nesterov(self) -> bool: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def precision(self) -> Literal["fp32", "bf16", "fp16"]: ...
    @property
    def sync_batch_norm(self) -> SyncBatchNormConfig: ...
    def learning_rates(self, epoch: int) -> tuple[float, float]:
        """The rates of a whole epoch: of the backbone and of the classifier."""


class Network(nn.Module):
    """Normalised images [B, 3, h, w] -> class scores [B, C]: a backbone and a linear classifier."""

    def __init__(self, backbone: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.backbone, self.classifier = backbone, classifier

    def forward(self, images: Tensor) -> Tensor:
        """Scores of every class; ConfigError for a backbone that gives other features."""
        features = self.backbone(images)
        require_rows(features, self.classifier.in_features)
        scores: Tensor = self.classifier(features)
        return scores


def network(probe: Probe) -> Network:
    """A trainable copy of the probe's backbone with a new classifier: torch's default weights.

    Uniform in +-1 / sqrt(feature_dim), drawn from the probe's seed; equal on all ranks.
    """
    with drawing(probe.device, probe.seed, INITIALISATION):
        classifier = nn.Linear(probe.feature_dim, probe.train.num_classes)
    backbone = deepcopy(probe.backbone).requires_grad_(True)
    return Network(backbone, classifier.to(probe.device))


def finetune(probe: Probe, views: Views, recipe: Recipe) -> Iterator[Network]:
    """Train all weights with cross-entropy; the network after every epoch, in evaluation mode.

    SGD with two rates, of the backbone and of the classifier, both constant within an epoch. A pure
    function of its arguments; the probe's backbone and the global generators stay as they are.
    Weights, their update and the loss are float32, forward and backward pass of `precision`.
    Under DDP gradients are averaged and batch normalisation spans the ranks as `sync_batch_norm`
    says: ranks take the step of one process on the whole batch. DivergenceError once an epoch's
    mean loss is not finite, on all ranks together.
    """
    model = _synchronised(network(probe), recipe.sync_batch_norm, probe.device)
    parallel = data_parallel(model, probe.device)
    precision = Precision(recipe.precision, probe.device)
    # The rates are set before every epoch; 0 is never used.
    optimizer = torch.optim.SGD(
        [{"params": model.backbone.parameters()}, {"params": model.classifier.parameters()}],
        lr=0.0,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )
    for epoch in range(recipe.epochs):
        rates = recipe.learning_rates(epoch)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        model.train()
        with drawing(probe.device, probe.seed, epoch, comm.rank()):
            loss = _train_epoch(parallel, optimizer, precision, views(epoch), probe)
        if not math.isfinite(loss):
            raise DivergenceError(
                f"the loss of fine-tuning became {loss} in epoch {epoch + 1} at learning rates "
                f"{rates[0]:g} (backbone) and {rates[1]:g} (classifier); lower benchmark.lr or "
                "benchmark.head_lr"
            )
        log.debug("fine-tuning epoch %d/%d: loss %.4f", epoch + 1, recipe.epochs, loss)
        model.eval()
        same_buffers(model, ())  # statistics of groups of ranks differ, and one network is measured
        yield model


def _synchronised(model: Network, settings: SyncBatchNormConfig, device: torch.device) -> Network:
    if not settings.enabled:
        return model
    converted = convert_sync_batch_norm(
        model, group_size=settings.group_size, device_type=device.type
    )
    assert isinstance(converted, Network)
    return converted


def _train_epoch(
    parallel: nn.Module,
    optimizer: torch.optim.SGD,
    precision: Precision,
    batches: Iterator[Batch],
    probe: Probe,
) -> float:
    """One pass; returns the mean loss over batches and ranks."""
    total, count = torch.zeros((), device=probe.device), 0
    for batch in batches:
        assert batch.labels is not None
        with precision.autocast():
            scores = parallel(probe.normalize(batch.views[0]))
        loss = F.cross_entropy(scores.float(), batch.labels)
        optimizer.zero_grad()
        precision.backward(loss)
        precision.step(optimizer)
        total += loss.detach()
        count += 1
    return float(comm.all_reduce_sum(total)) / (count * comm.world_size())


@contextmanager
def drawing(device: torch.device, *key: int) -> Iterator[None]:
    """What torch draws inside (dropout, stochastic depth) is a function of the key alone.

    The global generators are as before afterwards.
    """
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(mix(*key))
        if on_gpu:
            torch.cuda.manual_seed(mix(*key))
        yield
