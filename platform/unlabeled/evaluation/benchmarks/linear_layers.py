"""Linear probes of several layers at once: where in the network the classes become separable."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlabeled.data.transforms.base import Pipeline
from unlabeled.errors import ConfigError, DataError
from unlabeled.evaluation.benchmarks.base import Benchmark, Probe, Test, require_labels
from unlabeled.evaluation.benchmarks.linear import SECONDS_BETWEEN_LINES
from unlabeled.evaluation.classifier import Feed, descend, inverse_root_rate
from unlabeled.evaluation.feeds import augmented_feed, cached_feed
from unlabeled.evaluation.layer_heads import Head, accuracies, averaged_accuracies
from unlabeled.evaluation.layer_probe import of_layers
from unlabeled.evaluation.layers import Layer, Taps
from unlabeled.evaluation.sgd_settings import epoch_rate, sgd_problems
from unlabeled.evaluation.training_views import training_view, view_problems
from unlabeled.registry import Component, register

log = logging.getLogger(__name__)


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
    top5_<layer> after the last epoch, top1_best_<layer> of the best epoch, top1_averaged_<layer>
    and top5_averaged_<layer> with test_views; top1 is the best of the layers after the last epoch,
    averaged if they are. Best layers and best epochs are chosen on the test split.
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
        schedule: Literal["cosine", "step", "inverse_root"] = "step"
        """Per epoch cosine towards 0, or x decay_factor at decay_epochs (VISSL); per step t
        lr / sqrt(1 + lr weight_decay t) (DeepCluster)."""
        decay_epochs: list[int] = field(default_factory=lambda: [8, 16, 24])
        """Epochs at which schedule=step lowers the rate (VISSL, ImageNet)."""
        decay_factor: float = 0.1
        """What schedule=step multiplies the rate by (VISSL)."""
        initial: Literal["uniform", "normal"] = "uniform"
        """First weights and biases of D inputs: all U(-1/sqrt(D), 1/sqrt(D)) (VISSL), or weights
        N(0, 0.01) and biases 0 (SwAV eval_linear.py)."""
        augment: bool = True
        """Encode new training views every epoch (VISSL); false: encode every image once, and keep
        the maps in memory."""
        train_transform: Annotated[Component, "transform"] | None = None
        """The training view; null: a random resized crop and a flip (VISSL) at the size of the
        evaluation view. Unused without augment."""
        test_views: list[Annotated[Component, "transform"]] = field(default_factory=list)
        """Views of the test images whose class probabilities are averaged after the last epoch
        (DeepCluster: ten crops); none: the evaluation view alone."""
        source: str = "VISSL, ImageNet-1k linear"
        """Where the settings come from, for the protocol of the result."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges, the number of training views, and that there is a layer."""
            if not any(self.layers.values()):
                yield "layers", "needs at least one layer"
            if self.batch_size == 1:
                yield "batch_size", "must be at least 2 for statistics, got 1"
            yield from sgd_problems(self, nesterov=self.nesterov)
            for view in self.test_views:
                yield from view_problems("test_views", view)

        def learning_rate(self, epoch: int) -> float:
            """The rate of a whole epoch, or of the very first step."""
            return epoch_rate(self, self.lr, epoch)

        def step_rate(self, step: int) -> float:
            """The rate of a step, counted from the first of all."""
            return inverse_root_rate(self.learning_rate(0), self.weight_decay, step)

    config: Config

    @property
    def protocol(self) -> str:
        views = "augmented training views" if self.config.augment else "each image encoded once"
        return (
            f"linear classifiers on {len(self._layers())} frozen layers trained in one pass, "
            f"{views}, {self.config.epochs} epochs, SGD {self.config.learning_rate(0):g}, batch "
            f"{self.config.batch_size}, last epoch, {self._seen}top1 of the layer that is best on "
            f"the test split ({self.config.source})"
        )

    @property
    def _seen(self) -> str:
        views = len(self.config.test_views)
        return f"mean probabilities of {views} views, " if views else ""

    def run(self, probe: Probe) -> dict[str, float]:
        self._require_statistics(probe)
        taps = self.taps(probe, probe.pipeline)
        maps = of_layers(probe, taps)
        test = maps.features("test")
        history: list[dict[str, tuple[float, float]]] = []
        said = time.monotonic()
        for heads in self.train(maps, taps):
            history.append(accuracies(heads, taps, test, probe.device))
            if time.monotonic() - said > SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                line = ", ".join(f"{key} {top1:.2f}" for key, (top1, _) in history[-1].items())
                log.info("linear epoch %d/%d: top1 %s", len(history), self.config.epochs, line)
        return _metrics(history, self._averaged(heads, taps, maps))

    def fitted(self, probe: Probe) -> Test:
        self._require_statistics(probe)
        taps = self.taps(probe, probe.pipeline)
        (last,) = deque(self.train(of_layers(probe, taps), taps), maxlen=1)

        def test(other: Probe) -> dict[str, float]:
            found = of_layers(other, taps).features("test")
            averaged = self._averaged(last, taps, of_layers(other, taps))
            return _metrics([accuracies(last, taps, found, other.device)], averaged)

        return test

    def _averaged(
        self, heads: Mapping[str, Head], taps: Taps, maps: Probe
    ) -> dict[str, tuple[float, float]]:
        """The accuracies of mean probabilities over the test views; empty without any."""
        if not self.config.test_views:
            return {}
        pipelines: list[Pipeline] = [view.build() for view in self.config.test_views]
        for pipeline in pipelines:
            if (shapes := self.taps(maps, pipeline).shapes) != taps.shapes:
                raise ConfigError(
                    f"benchmark.test_views: of views of {pipeline.views[0].size} px pooling leaves "
                    f"{shapes}, of those that classifiers read {taps.shapes}; give views of the "
                    "same size"
                )
        views = (maps.with_test_view(pipeline).features("test") for pipeline in pipelines)
        return averaged_accuracies(heads, taps, views, maps.device)

    def _require_statistics(self, probe: Probe) -> None:
        if len(probe.train) < 2:
            raise DataError("one training image has no batch statistics; give two or more")
        require_labels(probe)

    def taps(self, probe: Probe, pipeline: Pipeline) -> Taps:
        """The encoder of all layers for views of a pipeline."""
        size = pipeline.views[0].size
        return Taps(probe.backbone, self._layers(), size=size, device=probe.device)

    def train(self, probe: Probe, taps: Taps) -> Iterator[dict[str, Head]]:
        """The classifiers after every epoch; nothing of the test split is looked at."""
        config = self.config
        heads = {
            key: Head(
                taps.shapes[key],
                probe.train.num_classes,
                layer.batch_norm,
                seed=probe.seed,
                initial=config.initial,
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
        by_step = config.step_rate if config.schedule == "inverse_root" else None
        feed = self._feed(probe, taps)
        for _ in descend(feed, config, optimizer, loss, remedy=remedy, step_rate=by_step):
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
        pipeline = training_view(config.train_transform, probe)
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


def _metrics(
    history: list[dict[str, tuple[float, float]]], averaged: dict[str, tuple[float, float]]
) -> dict[str, float]:
    last = history[-1]
    metrics = {"top1": max(top1 for top1, _ in (averaged or last).values())}
    for key, (top1, top5) in averaged.items():
        metrics[f"top1_averaged_{key}"], metrics[f"top5_averaged_{key}"] = top1, top5
    for key, (top1, top5) in last.items():
        metrics[f"top1_{key}"] = top1
        metrics[f"top1_best_{key}"] = max(epoch[key][0] for epoch in history)
        metrics[f"top5_{key}"] = top5
    return metrics
