"""What every benchmark of detection does, whatever the detector: data, seeds and their mean."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from unlabeled.evaluation.benchmarks.base import Benchmark, OwnData, Probe
from unlabeled.transfer.detection_data import (
    Layout,
    check_classes,
    class_names,
    detection_split,
    name_problem,
)
from unlabeled.transfer.detection_images import DetectionImages
from unlabeled.transfer.detection_runs import ORDER, Settings, mean_over_runs


class DetectionSettings(Settings, Protocol):
    """What this file reads of a benchmark's config."""

    @property
    def root(self) -> str: ...
    @property
    def classes(self) -> list[str] | None: ...


class RCNNSettings(Protocol):
    """What the checks of a Faster or Mask R-CNN read."""

    @property
    def layout(self) -> Layout: ...
    @property
    def train(self) -> list[str]: ...
    @property
    def test(self) -> str: ...
    @property
    def classes(self) -> list[str] | None: ...
    @property
    def detector(self) -> str: ...
    @property
    def train_sizes(self) -> list[int]: ...


class DetectionBenchmark(Benchmark):
    """Trainings with seeds seed, seed + 1, ... on a data set of its own, and the mean of them."""

    config: DetectionSettings

    @property
    @abstractmethod
    def splits(self) -> tuple[Layout, Sequence[str], str]:
        """The layout of the folder, the splits to train on and the one to measure on."""

    @abstractmethod
    def once(self, probe: Probe, names: list[str], *, seed: int, folder: Path) -> dict[str, float]:
        """The metrics of one training on the classes `names`, whose state `folder` may keep."""

    def own_data(self) -> OwnData:
        """The splits below `root`, checked."""
        layout, train, test = self.splits
        found = [detection_split(layout, self.config.root, name) for name in (*train, test)]
        return OwnData(layout, DetectionImages(found[:-1]), DetectionImages(found[-1:]))

    def run(self, probe: Probe) -> dict[str, float]:
        train, test = probe.train, probe.test
        assert isinstance(train, DetectionImages) and isinstance(test, DetectionImages)
        layout = self.splits[0]
        names = class_names(layout, self.config.classes, train.splits)
        check_classes(train.splits, test.splits[0], names)
        return mean_over_runs(
            probe,
            self.config,
            ORDER[layout],
            lambda seed, folder: self.once(probe, names, seed=seed, folder=folder),
        )


def rcnn_problems(settings: RCNNSettings) -> Iterator[tuple[str, str]]:
    """Faults of splits, sizes and classes, and masks without polygons."""
    for name in ("train", "train_sizes"):
        if not getattr(settings, name):
            yield name, "needs one or more"
    for name, split in [("test", settings.test), *(("train", each) for each in settings.train)]:
        if fault := name_problem(settings.layout, split):
            yield name, fault
    if settings.classes is not None and not settings.classes:
        yield "classes", "needs one or more, or null"
    if settings.layout == "voc" and settings.detector == "mask_rcnn_fpn":
        yield "detector", "mask_rcnn_fpn needs polygons, which layout=voc has not"
