"""The contract of a benchmark: what it may use, and what it gives back."""

from __future__ import annotations

import abc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from unlabeled.config.schema import LoaderConfig
from unlabeled.data.sources.base import Source, Split
from unlabeled.data.transforms.base import Pipeline
from unlabeled.errors import ConfigError, DataError
from unlabeled.evaluation.features import FeatureSet, extract

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Probe:
    """Everything that a benchmark may use.

    encode: normalised images [B, 3, h, w] -> features [B, feature_dim], of a model that the caller
    has put into evaluation mode. pipeline: the evaluation view. normalize: uint8 -> float32 on the
    device. batch_size: images per forward pass over all ranks. cache: features already extracted;
    only probes of the same weights, pipeline and normalisation may share one.
    """

    encode: Callable[[Tensor], Tensor]
    backbone: nn.Module  # the module behind encode, in evaluation mode, on the device
    feature_dim: int
    train: Source
    test: Source
    pipeline: Pipeline
    normalize: Callable[[Tensor], Tensor]
    device: torch.device
    batch_size: int
    loader: LoaderConfig
    seed: int
    cache: dict[str, FeatureSet]

    def with_test_view(self, pipeline: Pipeline) -> Probe:
        """The same probe with another evaluation view of the test split, and of that alone.

        Features of the training split that are known stay known.
        """
        known = {key: found for key, found in self.cache.items() if key.startswith("train ")}
        return replace(self, pipeline=pipeline, cache=known)

    def features(self, split: Split) -> FeatureSet:
        """All features of a split under the evaluation view, extracted at the first request."""
        source = self.train if split == "train" else self.test

        def encode(images: Tensor) -> Tensor:
            features = self.encode(images)
            require_rows(features, self.feature_dim)
            return features

        key = f"{split} {source.fingerprint()}"
        if key not in self.cache:
            self.cache[key] = extract(
                encode,
                source,
                self.pipeline,
                normalize=self.normalize,
                device=self.device,
                batch_size=self.batch_size,
                loader=self.loader,
            )
        return self.cache[key]


@dataclass(frozen=True)
class OwnData:
    """A data set that a benchmark brings with it, in place of the one that `dataset` names."""

    name: str
    train: Source
    test: Source


Test = Callable[[Probe], dict[str, float]]
"""The metrics on the test split of a probe, the main one first."""


class Benchmark(abc.ABC):
    """A way to measure features; the constructor is `__init__(self, config)`.

    It changes nothing of the model and draws no random numbers from the global generators; the same
    probe gives the same numbers. `run` is called on every rank at the same time. A data set that a
    field of the config names counts with its train split.
    """

    def __init__(self, config: object) -> None:
        self.config = config

    @property
    def measured(self) -> Split:
        """The split that the numbers are of; where it is train, no test split has to exist."""
        return "test"

    @property
    @abc.abstractmethod
    def protocol(self) -> str:
        """One line that names the settings that matter and the source they come from."""

    def own_data(self) -> OwnData | None:
        """The data set that the benchmark is bound to, or None: it measures on any `dataset`."""
        return None

    @abc.abstractmethod
    def run(self, probe: Probe) -> dict[str, float]:
        """The metrics, equal on every rank, the main one first. Accuracies are percentages."""

    def viewed(self, probe: Probe) -> Probe:
        """The probe under the view that the config names for the benchmark, if it names one."""
        return probe

    def fitted(self, probe: Probe) -> Test:
        """Train now, and test later on any probes that differ from this one in the test split.

        All of them are `viewed`, or views derived from that; `run` looks after it by itself.
        The test gives what `run` gives after the last epoch, and may leave out other metrics than
        the main one. A benchmark that trains nothing is `run` for every one of them.
        """
        return self.run

    @property
    def files(self) -> tuple[Path, ...]:
        """Files named by the config whose contents decide the numbers, as its own fields do."""
        return ()


def require_rows(features: Tensor, feature_dim: int) -> None:
    """ConfigError unless an encoder's output is one row an image, [B, feature_dim]."""
    if features.ndim != 2 or features.shape[1] != feature_dim:
        raise ConfigError(
            f"backbone: gives features of shape {list(features.shape)} for {len(features)} images, "
            f"not [{len(features)}, {feature_dim}] as its feature_dim of {feature_dim} says; mend "
            "the one or the other, or choose another backbone"
        )


def require_labels(probe: Probe) -> None:
    """DataError unless both splits have labels and these mean the same classes."""
    require_split_labels("train", probe.train)
    require_split_labels("test", probe.test)
    require_equal_classes(probe)


def require_equal_classes(probe: Probe) -> None:
    """DataError unless classes mean the same in both splits and can be learned.

    A class number must have the same name in both, and a class of a test image some training image.
    A class that no test image has is logged.
    """
    train, test = probe.train.classes, probe.test.classes
    if train == test:
        _require_training_images(probe.train, probe.test)
        return
    faults = [
        f"only in {where}: {_some(names)}"
        for where, names in (
            ("train", [name for name in train if name not in set(test)]),
            ("test", [name for name in test if name not in set(train)]),
        )
        if names
    ]
    raise DataError(
        f"train has {len(train)} classes and test has {len(test)}, and a label must mean the same "
        f"in both: {'; '.join(faults) or 'the names are the same, their order differs'}"
    )


def _require_training_images(train: Source, test: Source) -> None:
    if train.labels is None or test.labels is None:
        return
    only_test, only_train = (
        [train.classes[number] for number in np.setdiff1d(one, other)]
        for one, other in ((test.labels, train.labels), (train.labels, test.labels))
    )
    if only_test:
        raise DataError(
            f"no training image shows what some test images do, {_some(only_test)}"
            + (f" (and no test image shows {_some(only_train)})" if only_train else "")
            + "; a class must be in both splits: see how the folders or labels of each are called"
        )
    if only_train:
        log.warning("%d classes have no test image: %s", len(only_train), _some(only_train))


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"


def require_split_labels(split: Split, source: Source) -> None:
    """DataError unless every image of the split has one label."""
    if source.multi_labels is not None:
        raise DataError(
            f"an image of the {split} split may show several classes, and this benchmark needs "
            "one label for each; measure this data set with benchmark=svm"
        )
    if source.labels is None:
        raise DataError(
            f"the {split} split has no labels, which this benchmark needs; choose a labelled "
            "data set for evaluation with dataset=..."
        )
