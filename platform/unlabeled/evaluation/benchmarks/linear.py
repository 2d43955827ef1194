"""The linear probe: how much of the classes a hyperplane finds in frozen features."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from unlabeled.config.ranges import at_least
from unlabeled.evaluation.accuracy import top_accuracy
from unlabeled.evaluation.benchmarks.base import Benchmark, Probe, Test, require_labels
from unlabeled.evaluation.classifier import Feed, fit
from unlabeled.evaluation.features import FeatureSet
from unlabeled.evaluation.feeds import augmented_feed, cached_feed
from unlabeled.evaluation.sgd_settings import epoch_rate, sgd_problems
from unlabeled.evaluation.token_features import (
    cls_and_mean_patch,
    last_cls_tokens,
    require_tokens,
)
from unlabeled.evaluation.training_views import training_view
from unlabeled.registry import Component, register

log = logging.getLogger(__name__)

# Test rows classified at once: 8192 x 2048 float32 = 64 MB on the device.
TEST_BLOCK = 8192
SECONDS_BETWEEN_LINES = 10.0

Scaling = Callable[[Tensor], Tensor]


@register("benchmark", "linear")
class Linear(Benchmark):
    """Linear classification of frozen features, by SwAV's protocol and, for tokens, DINO's.

    Cross-entropy of W f + b, minimised by SGD on every training image, augmented anew each epoch
    (`augment`) or seen once under the evaluation view, which takes seconds on a CPU. Metrics, in
    percent: top1 and top5 after the last epoch, and top1_best, the best epoch chosen on the test
    split. Official SwAV and DINO numbers are of the best epoch; compare those with top1_best.
    Raises DataError without labels or with differing classes, DivergenceError when the loss does,
    ConfigError if `features` asks a backbone for tokens that it does not have.
    Under DDP the ranks share the encoding; each takes the same steps on whole batches.
    Reference: Caron et al., SwAV, arXiv:2006.09882, appendix A.3, and its eval_linear.py; DINO,
    arXiv:2104.14294, and its eval_linear.py (tokens).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of `configs/benchmark/linear.yaml`."""

        features: Literal["output", "cls", "cls_and_mean_patch"] = "output"
        """output: what the backbone returns; cls: a ViT's CLS tokens of the last blocks, one behind
        the other; cls_and_mean_patch: the CLS token and the mean patch token, in turns (DINO)."""
        last_blocks: int = 1
        """Blocks whose CLS token is taken by features=cls, each after the final norm (DINO: 4)."""
        epochs: int = 100
        """Passes over the training split (SwAV A.3)."""
        batch_size: int = 256
        """Images per step, over all ranks (SwAV A.3)."""
        lr: float = 0.3
        """Learning rate of the first epoch (SwAV A.3: 0.3 at batch size 256)."""
        lr_reference_batch_size: int | None = None
        """Multiply lr by batch_size / this; null takes lr as it is, like SwAV."""
        momentum: float = 0.9
        """SGD momentum, without Nesterov (SwAV eval_linear.py)."""
        weight_decay: float = 1e-6
        """L2 penalty on weight and bias (SwAV A.3)."""
        schedule: Literal["cosine", "step"] = "cosine"
        """Per epoch: cosine towards 0 (SwAV A.3), or x decay_factor at decay_epochs."""
        decay_epochs: list[int] = field(default_factory=lambda: [60, 80])
        """Epochs at which schedule=step lowers the rate (SwAV eval_linear.py)."""
        decay_factor: float = 0.1
        """What schedule=step multiplies the rate by (SwAV eval_linear.py)."""
        normalize_features: Literal["none", "standardize"] = "none"
        """standardize: zero mean and unit variance per dimension, by training features under the
        evaluation view. Not SwAV's protocol; for features of arbitrary scale, such as pixels."""
        augment: bool = True
        """Encode new training views every epoch (SwAV); false: encode every image once."""
        train_transform: Annotated[Component, "transform"] | None = None
        """The training view; null: a random resized crop and a flip (SwAV A.3) at the size of the
        evaluation view. Unused without augment."""
        source: str = "SwAV, arXiv:2006.09882, A.3"
        """Where the settings come from, for the protocol of the result."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges, and the number of training views."""
            yield from at_least(self, 1, "last_blocks")
            if self.last_blocks > 1 and self.features != "cls":
                yield "last_blocks", f"{self.last_blocks} blocks are read by features=cls alone"
            yield from sgd_problems(self)

        def learning_rate(self, epoch: int) -> float:
            """The rate of a whole epoch."""
            return epoch_rate(self, self.lr, epoch)

    config: Config

    @property
    def protocol(self) -> str:
        views = "augmented training views" if self.config.augment else "each image encoded once"
        scale = "standardised" if self.config.normalize_features == "standardize" else "frozen"
        blocks = self.config.last_blocks
        features = {
            "output": "features",
            "cls": f"CLS tokens of the last {blocks} blocks" if blocks > 1 else "CLS tokens",
            "cls_and_mean_patch": "CLS and mean patch tokens",
        }[self.config.features]
        return (
            f"linear classifier on {scale} {features}, {views}, {self.config.epochs} epochs, "
            f"SGD {self.config.learning_rate(0):g}, batch {self.config.batch_size}, last epoch "
            f"({self.config.source})"
        )

    def run(self, probe: Probe) -> dict[str, float]:
        require_labels(probe)
        probe = self.described(probe)
        scale = self._scaling(probe)
        test = probe.features("test")
        top1: list[float] = []
        said = time.monotonic()
        for epoch, classifier in enumerate(self.train(probe, scale)):
            scores, labels = classify(classifier, test, scale, probe.device)
            top1.append(top_accuracy(scores, labels, 1))
            if time.monotonic() - said > SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                log.info("linear epoch %d/%d: top1 %.2f", epoch + 1, self.config.epochs, top1[-1])
        top5 = top_accuracy(scores, labels, 5)
        return {"top1": top1[-1], "top1_best": max(top1), "top5": top5}

    def fitted(self, probe: Probe) -> Test:
        require_labels(probe)
        probe = self.described(probe)
        scale = self._scaling(probe)
        (last,) = deque(self.train(probe, scale), maxlen=1)

        def test(other: Probe) -> dict[str, float]:
            features = self.described(other).features("test")
            scores, labels = classify(last, features, scale, other.device)
            return {"top1": top_accuracy(scores, labels, 1)}

        return test

    def described(self, probe: Probe) -> Probe:
        """The probe with the features that the classifier reads."""
        if self.config.features == "output":
            return probe
        backbone = require_tokens(probe.backbone, "benchmark.features")
        if self.config.features == "cls":
            parts = self.config.last_blocks
            encode = last_cls_tokens(backbone, parts)
        else:
            parts = 2
            encode = cls_and_mean_patch(backbone)
        return replace(probe, encode=encode, feature_dim=parts * backbone.feature_dim, cache={})

    def train(self, probe: Probe, scale: Scaling) -> Iterator[nn.Linear]:
        """The classifier after every epoch; nothing of the test split is looked at."""
        feed = self._feed(probe)
        return fit(
            lambda epoch: ((scale(features), labels) for features, labels in feed(epoch)),
            self.config,
            feature_dim=probe.feature_dim,
            num_classes=probe.train.num_classes,
            seed=probe.seed,
            device=probe.device,
        )

    def _feed(self, probe: Probe) -> Feed:
        if self.config.augment:
            pipeline = training_view(self.config.train_transform, probe)
            return augmented_feed(probe, pipeline, batch_size=self.config.batch_size)
        return cached_feed(
            probe.features("train"),
            batch_size=self.config.batch_size,
            seed=probe.seed,
            device=probe.device,
        )

    def _scaling(self, probe: Probe) -> Scaling:
        if self.config.normalize_features == "none":
            return lambda features: features
        train = probe.features("train").features
        std, mean = torch.std_mean(train, dim=0, correction=0)  # [D], [D]
        std, mean = std.where(std > 0, 1.0).to(probe.device), mean.to(probe.device)
        return lambda features: (features - mean) / std


@torch.no_grad()
def classify(
    classifier: nn.Linear,
    test: FeatureSet,
    scale: Scaling,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Scores [N, C] and labels [N] of a split, on the device."""
    assert test.labels is not None
    blocks = torch.split(test.features, TEST_BLOCK)
    scores = torch.cat([classifier(scale(rows.to(device))) for rows in blocks])
    return scores, test.labels.to(device)
