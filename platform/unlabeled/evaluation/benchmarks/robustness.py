"""Robustness: how much of a classification survives when the test images change."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from unlabeled.errors import ConfigError
from unlabeled.evaluation.benchmarks.base import Benchmark, Probe
from unlabeled.evaluation.benchmarks.knn import KNN
from unlabeled.evaluation.corruptions import (
    SEVERITIES,
    Change,
    Changed,
    corruption,
    resolution,
    rotation,
)
from unlabeled.registry import Component, register

log = logging.getLogger(__name__)

Corruption = Literal["gaussian_noise", "gaussian_blur", "contrast", "brightness", "jpeg"]


@register("benchmark", "robustness")
class Robustness(Benchmark):
    """Another benchmark's top-1 accuracy on turned, shrunk and corrupted test images.

    Training images stay clean; only the evaluation view of the test split is changed, after its
    crop. Metrics, in percent: top1, the mean over all changes; top1_clean; top1_<family>, the mean
    of a family of changes (rotation, resolution, or the name of a corruption); and
    top1_<family>_<number> for each angle, share or severity.
    A benchmark that trains does so once, and its classifier of the last epoch is tested on every
    change; features of training images are extracted once.
    Raises what the other benchmark does, and ConfigError if that gives no top1.
    Under DDP as the other benchmark.
    Reference: Hendrycks and Dietterich, arXiv:1903.12261 (corruptions and severities; their mean
    error is divided by that of AlexNet, this one is not).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of `configs/benchmark/robustness.yaml`."""

        benchmark: Annotated[Component, "benchmark"] = field(
            default_factory=lambda: Component("benchmark", "knn", KNN.Config())
        )
        """The classification that is measured; choose another by benchmark@benchmark.benchmark."""
        rotations: list[float] = field(default_factory=lambda: [30.0, 60.0, 90.0, 180.0, 270.0])
        """Angles that test views are turned by, in degrees, counter-clockwise."""
        resolutions: list[float] = field(default_factory=lambda: [0.5, 0.25, 0.125])
        """Shares of its sides that a test view is shrunk to, and enlarged again."""
        corruptions: list[Corruption] = field(
            default_factory=lambda: [
                "gaussian_noise",
                "gaussian_blur",
                "contrast",
                "brightness",
                "jpeg",
            ]
        )
        """Corruptions of ImageNet-C."""
        severities: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
        """Strengths of every corruption (ImageNet-C: 1 to 5)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges, and that something is changed."""
            for share in self.resolutions:
                if not 0 < share <= 1:
                    yield "resolutions", f"must be shares in (0, 1], got {share}"
            for severity in self.severities:
                if not 1 <= severity <= SEVERITIES:
                    yield "severities", f"must be 1 to {SEVERITIES}, got {severity}"
            if not (self.rotations or self.resolutions or (self.corruptions and self.severities)):
                yield "corruptions", "there is no change to measure; give rotations or others"
            if self.benchmark.name == "robustness":
                yield "benchmark", "robustness of robustness; take another benchmark, as linear"

        def changes(self) -> dict[str, dict[str, Change]]:
            """Every change by its number in its family."""
            families = {
                "rotation": {f"{angle:g}": rotation(angle) for angle in self.rotations},
                "resolution": {f"{share:g}": resolution(share) for share in self.resolutions},
            }
            for name in self.corruptions:
                families[name] = {str(n): corruption(name, n) for n in self.severities}
            return {family: changes for family, changes in families.items() if changes}

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.inner: Benchmark = config.benchmark.build()
        if self.inner.measured == "train":
            raise ConfigError(
                f"benchmark.benchmark: {config.benchmark.name} measures the training images here, "
                "and robustness changes test images; leave out benchmark.benchmark.leave_one_out"
            )
        if getattr(config.benchmark.fields, "test_views", None):
            raise ConfigError(
                f"benchmark.benchmark.test_views: {config.benchmark.name} makes views of its own, "
                "and robustness changes the one of eval_transform; use test_views=[]"
            )

    @property
    def protocol(self) -> str:
        return (
            f"mean over {', '.join(self.config.changes())} of the test images "
            f"(arXiv:1903.12261, not divided by AlexNet's) of: {self.inner.protocol}"
        )

    @property
    def files(self) -> tuple[Path, ...]:
        return self.inner.files

    def run(self, probe: Probe) -> dict[str, float]:
        probe = self.inner.viewed(probe)
        test = self.inner.fitted(probe)
        clean = self._top1(test(probe))
        log.info("clean: top1 %.2f", clean)
        means: dict[str, float] = {}
        single: dict[str, float] = {}
        for family, changes in self.config.changes().items():
            found = {
                f"top1_{family}_{number}": self._top1(test(_changed(probe, change)))
                for number, change in changes.items()
            }
            means[f"top1_{family}"] = float(np.mean(list(found.values())))
            log.info("%s: top1 %.2f", family, means[f"top1_{family}"])
            single |= found
        mean = float(np.mean(list(single.values())))
        return {"top1": mean, "top1_clean": clean, **means, **single}

    def _top1(self, metrics: Mapping[str, float]) -> float:
        if "top1" not in metrics:
            raise ConfigError(
                f"benchmark.benchmark: {self.config.benchmark.name} gives no top1 but "
                f"{', '.join(metrics)}; take a classification, such as knn or linear"
            )
        return metrics["top1"]


def _changed(probe: Probe, change: Change) -> Probe:
    """The probe with changed test images."""
    return probe.with_test_view(Changed(probe.pipeline, change, probe.seed))
