"""Linear probes of several layers at once: where in the network the classes become separable."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlabeled.data.transforms.base import Pipeline
from unlabeled.errors import ConfigError, DataError
from unlabeled.evaluation.accuracy import label_ranks
from unlabeled.evaluation.benchmarks.base import Benchmark, Probe, require_labels
from unlabeled.evaluation.benchmarks.linear import (
    SECONDS_BETWEEN_LINES,
    random_crop_like,
    view_problems,
)
from unlabeled.evaluation.classifier import Feed, descend, step_rate
from unlabeled.evaluation.features import FeatureSet
from unlabeled.evaluation.feeds import augmented_feed, cached_feed
from unlabeled.evaluation.layers import Layer, Shape, Taps
from unlabeled.registry import Component, register

log = logging.getLogger(__name__)

# Test rows classified at once: 1024 x 53,248 float32 (VISSL's seven layers) = 218 MB on the device.
TEST_BLOCK = 1024


def vissl_layers() -> dict[str, Layer | None]:
    """VISSL's seven classifiers of a ResNet-50 at 224 px: 8192 or 9216 numbers a map, then 2048."""
    return {
        "conv1": Layer(module="relu", pool=(10, 10, 4), batch_norm=True),
        "res2": Layer(module="layer1", pool=(16, 8, 0), batch_norm=True),
        "res3": Layer(module="layer2", pool=(13, 5, 0), batch_norm=True),
        "res4": Layer(module="layer3", pool=(8, 3, 0), batch_norm=True),
        "res5": Layer(module="layer4", pool=(6, 1, 0), batch_norm=True),
        "res5avg_bn": Layer(module="avgpool", pool=1, batch_norm=True),
        "res5avg": Layer(module="avgpool", pool=1, batch_norm=False),
    }


@register("benchmark", "linear_layers")
class LinearLayers(Benchmark):
    """Linear classification of the frozen maps of several layers, all in one pass over the data.

    Every layer has a classifier of its own, W norm(pool(map)) + b with cross-entropy; SGD minimises
    the sum, so each is trained as if it were alone. Metrics, in percent: top1_<layer> and
    top5_<layer> after the last epoch, top1_best_<layer> of the best epoch; top1 is the best of the
    layers after the last epoch. Best layers and best epochs are chosen on the test split.
    Raises DataError without labels or with differing classes, ConfigError for layers that the
    backbone does not have, DivergenceError when the loss diverges.
    Under DDP the ranks share the encoding; each takes the same steps on whole batches, so batch
    normalisation is over the whole batch. Each keeps the pooled maps of the test images in memory
    (VISSL's layers on ImageNet: 10.7 GB).
    Reference: Goyal et al., VISSL, eval_resnet_8gpu_transfer_in1k_linear; arXiv:1905.01235.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of `configs/benchmark/linear_layers.yaml`."""

        layers: dict[str, Layer | None] = field(default_factory=vissl_layers)
        """What is classified, by the name its metrics get; null leaves one out."""
        epochs: int = 28
        """Passes over the training split (VISSL, ImageNet)."""
        batch_size: int = 256
        """Images per step, over all ranks (VISSL: 8 x 32)."""
        lr: float = 0.01
        """Learning rate of the first epoch (VISSL: 0.01 at batch size 256)."""
        lr_reference_batch_size: int | None = 256
        """Multiply lr by batch_size / this (VISSL); null takes lr as it is."""
        momentum: float = 0.9
        """SGD momentum (VISSL)."""
        nesterov: bool = True
        """Nesterov's momentum (VISSL)."""
        weight_decay: float = 5e-4
        """L2 penalty on weights and biases, not on batch norm (VISSL; SwAV A.5: 1e-4)."""
        decay_epochs: list[int] = field(default_factory=lambda: [8, 16, 24])
        """Epochs at which the rate is lowered (VISSL, ImageNet)."""
        decay_factor: float = 0.1
        """What the rate is multiplied by (VISSL)."""
        augment: bool = True
        """Encode new training views every epoch (VISSL); false: encode every image once, and keep
        the maps in memory."""
        train_transform: Annotated[Component, "transform"] | None = None
        """The training view; null: a random resized crop and a flip (VISSL) at the size of the
        evaluation view. Unused without augment."""
        source: str = "VISSL, ImageNet-1k linear"
        """Where the settings come from, for the protocol of the result."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges, the number of training views, and that there is a layer."""
            if not any(self.layers.values()):
                yield "layers", "needs at least one layer"
            for name in ("epochs", "lr", "lr_reference_batch_size", "decay_factor"):
                value = getattr(self, name)
                if value is not None and value <= 0:
                    yield name, f"must be positive, got {value}"
            if self.batch_size < 2:
                yield "batch_size", f"must be at least 2 for statistics, got {self.batch_size}"
            if not 0 <= self.momentum < 1:
                yield "momentum", f"must be in [0, 1), got {self.momentum}"
            if self.nesterov and self.momentum == 0:
                yield "nesterov", "needs a momentum above 0"
            if self.weight_decay < 0:
                yield "weight_decay", f"must be 0 or more, got {self.weight_decay}"
            yield from view_problems(self.train_transform)

        def learning_rate(self, epoch: int) -> float:
            """The rate of a whole epoch."""
            scale = self.batch_size / (self.lr_reference_batch_size or self.batch_size)
            return step_rate(self.lr * scale, epoch, self.decay_epochs, self.decay_factor)

    config: Config

    @property
    def protocol(self) -> str:
        views = "augmented training views" if self.config.augment else "each image encoded once"
        return (
            f"linear classifiers on {len(self._layers())} frozen layers trained in one pass, "
            f"{views}, {self.config.epochs} epochs, SGD {self.config.learning_rate(0):g}, batch "
            f"{self.config.batch_size}, last epoch, top1 of the layer that is best on the test "
            f"split ({self.config.source})"
        )

    def run(self, probe: Probe) -> dict[str, float]:
        require_labels(probe)
        if len(probe.train) < 2:
            raise DataError("one training image has no batch statistics; give two or more")
        taps = self.taps(probe, probe.pipeline)
        maps = replace(probe, encode=taps, feature_dim=taps.feature_dim, cache={})
        test = maps.features("test")
        history: list[dict[str, tuple[float, float]]] = []
        said = time.monotonic()
        for heads in self.train(maps, taps):
            history.append(accuracies(heads, taps, test, probe.device))
            if time.monotonic() - said > SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                line = ", ".join(f"{key} {top1:.2f}" for key, (top1, _) in history[-1].items())
                log.info("linear epoch %d/%d: top1 %s", len(history), self.config.epochs, line)
        return _metrics(history)

    def taps(self, probe: Probe, pipeline: Pipeline) -> Taps:
        """The encoder of all layers for views of a pipeline."""
        size = pipeline.views[0].size
        return Taps(probe.backbone, self._layers(), size=size, device=probe.device)

    def train(self, probe: Probe, taps: Taps) -> Iterator[dict[str, Head]]:
        """The classifiers after every epoch; nothing of the test split is looked at."""
        config = self.config
        heads = {
            key: Head(
                taps.shapes[key], probe.train.num_classes, layer.batch_norm, seed=probe.seed
            ).to(probe.device)
            for key, layer in self._layers().items()
        }
        parts = nn.ModuleList(heads.values())
        norms = [p for head in heads.values() for p in head.norm.parameters()]
        linears = [p for head in heads.values() for p in head.linear.parameters()]
        groups: list[dict[str, Any]] = [{"params": linears}, {"params": norms, "weight_decay": 0.0}]
        optimizer = torch.optim.SGD(
            groups,
            lr=0.0,  # set before every epoch
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
        )

        def loss(features: Tensor, labels: Tensor) -> Tensor:
            parts.train()
            maps = taps.split(features)
            losses = [F.cross_entropy(head(maps[key]), labels) for key, head in heads.items()]
            return torch.stack(losses).sum()

        remedy = "give every layer batch_norm=true"
        for _ in descend(self._feed(probe, taps), config, optimizer, loss, remedy=remedy):
            parts.eval()
            yield heads

    def _feed(self, probe: Probe, taps: Taps) -> Feed:
        config = self.config
        if not config.augment:
            feed = cached_feed(
                probe.features("train"),
                batch_size=config.batch_size,
                seed=probe.seed,
                device=probe.device,
            )
            # A remainder of one image has no statistics of its own.
            return lambda epoch: (batch for batch in feed(epoch) if len(batch[1]) > 1)
        chosen = config.train_transform
        pipeline = chosen.build() if chosen else random_crop_like(probe.pipeline)
        trained = self.taps(probe, pipeline).shapes
        for key, shape in taps.shapes.items():
            if trained[key] != shape:
                raise ConfigError(
                    f"benchmark.layers.{key}.pool: leaves {list(trained[key])} of the training "
                    f"views of {pipeline.views[0].size} px and {list(shape)} of the evaluation "
                    f"views of {probe.pipeline.views[0].size} px; give views of the same size, or "
                    "the side that pooling leaves"
                )
        return augmented_feed(probe, pipeline, batch_size=config.batch_size)

    def _layers(self) -> dict[str, Layer]:
        return {key: layer for key, layer in self.config.layers.items() if layer is not None}


class Head(nn.Module):
    """Batch normalisation (or none) and a linear classifier: maps [B, C, h, w] -> scores [B, K].

    Weight and bias U(-1/sqrt(D), 1/sqrt(D)) with D = C*h*w (VISSL takes torch's default), drawn
    from `seed` and nothing else.
    """

    def __init__(self, shape: Shape, num_classes: int, batch_norm: bool, *, seed: int) -> None:
        super().__init__()
        width = math.prod(shape)
        self.norm: nn.Module = nn.BatchNorm2d(shape[0]) if batch_norm else nn.Identity()
        # Made without the default initialisation, which would draw from the global generator.
        self.linear = nn.Linear(width, num_classes, device="meta").to_empty(device="cpu")
        generator, bound = torch.Generator().manual_seed(seed), width**-0.5
        with torch.no_grad():
            for parameter in self.linear.parameters():
                parameter.uniform_(-bound, bound, generator=generator)

    def forward(self, maps: Tensor) -> Tensor:
        """Scores of every class."""
        scores: Tensor = self.linear(self.norm(maps).flatten(1))
        return scores


@torch.no_grad()
def accuracies(
    heads: Mapping[str, Head], taps: Taps, test: FeatureSet, device: torch.device
) -> dict[str, tuple[float, float]]:
    """Top-1 and top-5 of every layer in percent, a block of rows at a time."""
    assert test.labels is not None
    right = {key: torch.zeros(2, dtype=torch.int64) for key in heads}
    blocks = zip(
        torch.split(test.features, TEST_BLOCK), torch.split(test.labels, TEST_BLOCK), strict=True
    )
    for rows, own in blocks:
        maps, labels = taps.split(rows.to(device)), own.to(device)
        for key, head in heads.items():
            ranks = label_ranks(head(maps[key]), labels)
            right[key] += torch.stack([(ranks < 1).sum(), (ranks < 5).sum()]).cpu()
    share = {key: (100 * counts.double() / len(test)).tolist() for key, counts in right.items()}
    return {key: (top1, top5) for key, (top1, top5) in share.items()}


def _metrics(history: list[dict[str, tuple[float, float]]]) -> dict[str, float]:
    last = history[-1]
    metrics = {"top1": max(top1 for top1, _ in last.values())}
    for key, (top1, top5) in last.items():
        metrics[f"top1_{key}"] = top1
        metrics[f"top1_best_{key}"] = max(epoch[key][0] for epoch in history)
        metrics[f"top5_{key}"] = top5
    return metrics
