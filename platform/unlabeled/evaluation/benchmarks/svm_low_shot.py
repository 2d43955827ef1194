"""Linear support vector machines from a handful of images a class."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from unlabeled.config.ranges import positive
from unlabeled.errors import DataError
from unlabeled.evaluation.average_precision import area
from unlabeled.evaluation.benchmarks.base import Benchmark, Probe
from unlabeled.evaluation.layer_probe import of_layer
from unlabeled.evaluation.layers import Layer
from unlabeled.evaluation.linear_svm import (
    features_named,
    fit_svm,
    over_ranks,
    problems,
    unit_rows,
)
from unlabeled.evaluation.presence import presence, require_presence, shown_classes
from unlabeled.registry import Component, register

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LowShotData:
    """Unit features of both splits, and what the training images show: no test label."""

    train: np.ndarray
    test: np.ndarray
    shown: np.ndarray
    seed: int


def low_shot_data(probe: Probe) -> LowShotData:
    """What is trained on and scored."""
    train, test = probe.features("train"), probe.features("test")
    return LowShotData(
        unit_rows(train.features),
        unit_rows(test.features),
        presence(probe.train, train),
        probe.seed,
    )


@register("benchmark", "svm_low_shot")
class SVMLowShot(Benchmark):
    """One linear SVM a class on k positives and (C - 1) k negatives, for several k and draws.

    Every class draws its own images, without those that show it undecidedly; where there are too
    few negatives it takes all. The machines are those of `svm`. Metrics, in percent, for every k:
    map_k<k> and std_k<k>, mean and standard deviation over the draws of the mean AP (area) over
    classes, with cost = report_cost; map_k<k>_best_cost and std_k<k>_best_cost, with the cost of
    the largest mean, which is chosen on the test split: VISSL and the papers report these. First
    comes the largest k. A k that the rarest class has too few images for is left out and logged.
    Raises DataError without labels, with differing classes, or if no k is left. A class that no
    test image shows is left out of the mean. Under DDP the ranks share encoding and classes.
    Reference: Goyal et al., arXiv:1905.01235, section 6.1; VISSL svm_low_shot_trainer.py.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of `configs/benchmark/svm_low_shot.yaml`."""

        k: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16, 32, 64, 96])
        """Positives a class (VISSL)."""
        samples: int = 5
        """Independent draws for every k (VISSL)."""
        costs: list[float] = field(
            default_factory=lambda: [0.01, 0.1, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 50.0, 100.0, 1e3]
        )
        """Costs that the _best_cost metrics choose from (VISSL)."""
        report_cost: float = 1.0
        """The cost of the metrics that no test label has a part in; one of `costs`."""
        positive_weight: float = 2.0
        """How much more a violation by a positive costs (VISSL: 2)."""
        tolerance: float = 1e-4
        """Where LIBLINEAR stops (VISSL)."""
        max_iterations: int = 2000
        """Where it stops in any case (VISSL)."""
        layer: Layer | None = None
        """The layer whose pooled map is classified (VISSL: layer4, pool [6, 1, 0], 8192 numbers);
        null: what the backbone returns (SwAV A.5: 2048 numbers)."""
        view: Annotated[Component, "transform"] | None = None
        """The view of both splits (VISSL: squash); null: the evaluation view (SwAV A.5)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            if not self.k or min(self.k) < 1:
                yield "k", f"needs one or more numbers of 1 or more, got {self.k}"
            if self.report_cost not in self.costs:
                yield "report_cost", f"must be one of costs = {self.costs}, got {self.report_cost}"
            yield from positive(self, "samples")
            yield from problems(self)

    config: Config

    @property
    def protocol(self) -> str:
        return (
            f"linear SVM on {features_named(self.config)}, k = {self.config.k} positives a class, "
            f"cost {self.config.report_cost:g}, mean and deviation of {self.config.samples} draws "
            "of the mean AP (after Goyal et al., arXiv:1905.01235, section 6.1)"
        )

    def run(self, probe: Probe) -> dict[str, float]:
        require_presence(probe)
        probe = of_layer(probe, self.config.layer, self.config.view)
        shown = presence(probe.test, probe.features("test"))
        tested = shown_classes(shown)
        data = low_shot_data(probe)
        sizes = self._usable(data.shown, probe.train.classes)
        found = over_ranks(tested, lambda c: self._class_areas(data, shown[:, c], c, sizes))
        areas = np.stack([found[number] for number in tested])  # [classes, k, samples, costs]
        return self._metrics(sizes, 100 * areas.mean(axis=0))

    def _metrics(self, sizes: list[int], means: np.ndarray) -> dict[str, float]:
        """The named metrics from mean APs [k, samples, costs]."""
        metrics: dict[str, float] = {}
        for k, of_k in reversed(list(zip(sizes, means, strict=True))):
            fixed = of_k[:, self.config.costs.index(self.config.report_cost)]
            best = of_k[:, int(of_k.mean(axis=0).argmax())]
            for suffix, draws in (("", fixed), ("_best_cost", best)):
                metrics[f"map_k{k}{suffix}"] = float(draws.mean())
                metrics[f"std_k{k}{suffix}"] = float(draws.std())
        return metrics

    def _class_areas(
        self, data: LowShotData, shown: np.ndarray, number: int, sizes: list[int]
    ) -> np.ndarray:
        """AP [k, samples, costs] of one class, which `shown` int8 [n] places in the test images."""
        decided, positive = shown != 0, shown[shown != 0] == 1
        return np.array(
            [
                [
                    [area(row[decided], positive) for row in self.scores(data, number, k, draw)]
                    for draw in range(self.config.samples)
                ]
                for k in sizes
            ]
        )

    def scores(self, data: LowShotData, number: int, k: int, draw: int) -> Iterator[np.ndarray]:
        """For every cost the test images' distances [n] to the margin of class `number`."""
        shown = data.shown[:, number]
        chosen = drawn(shown, k, data.shown.shape[1], seed=(data.seed, draw, k, number))
        rows, positive = data.train[chosen], shown[chosen] == 1
        for cost in self.config.costs:
            machine = fit_svm(rows, positive, cost=cost, recipe=self.config, seed=data.seed)
            yield machine.decision_function(data.test)

    def _usable(self, shown: np.ndarray, classes: tuple[str, ...]) -> list[int]:
        positives, negatives = (shown == 1).sum(axis=0), (shown == -1).sum(axis=0)
        rarest = int(positives.argmin())
        usable = sorted({k for k in self.config.k if k <= positives[rarest]})
        if not usable or not negatives.all():
            raise DataError(
                f"class {classes[rarest]} is in {int(positives[rarest])} training images, and "
                f"benchmark.k asks for {min(self.config.k)}; every class needs images with it and "
                "images without"
            )
        if len(usable) < len(set(self.config.k)):
            left = sorted(set(self.config.k) - set(usable))
            log.warning("SVM: k = %s left out: %s has fewer images", left, classes[rarest])
        return usable


def drawn(shown: np.ndarray, k: int, num_classes: int, *, seed: tuple[int, ...]) -> np.ndarray:
    """Sorted rows of k positives and (num_classes - 1) k negatives, without replacement.

    shown: int8 [N] of one class; all negatives where there are not so many; a pure function of the
    arguments.
    """
    random = np.random.default_rng(seed)
    positives = random.choice(np.flatnonzero(shown == 1), size=k, replace=False)
    negatives = np.flatnonzero(shown == -1)
    wanted = min((num_classes - 1) * k, len(negatives))
    return np.sort(np.concatenate([positives, random.choice(negatives, wanted, replace=False)]))
