"""The contract of a benchmark: what it may use, and what it gives back."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from unlabeled.config.schema import LoaderConfig
from unlabeled.data.sources.base import Source, Split
from unlabeled.data.transforms.base import Pipeline
from unlabeled.errors import DataError
from unlabeled.evaluation.features import FeatureSet, extract


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
        key = f"{split} {source.fingerprint()}"
        if key not in self.cache:
            self.cache[key] = extract(
                self.encode,
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


class Benchmark(abc.ABC):
    """A way to measure features; the constructor is `__init__(self, config)`.

    It changes nothing of the model and draws no random numbers from the global generators; the same
    probe gives the same numbers. `run` is called on every rank at the same time.
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

    @property
    def files(self) -> tuple[Path, ...]:
        """Files named by the config whose contents decide the numbers, as its own fields do."""
        return ()


def require_labels(probe: Probe) -> None:
    """DataError unless both splits have labels and these mean the same classes."""
    require_split_labels("train", probe.train)
    require_split_labels("test", probe.test)
    require_equal_classes(probe)


def require_equal_classes(probe: Probe) -> None:
    """DataError unless a class number means the same in both splits."""
    train, test = probe.train.classes, probe.test.classes
    if train == test:
        return
    faults = [
        f"only in {where}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
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
