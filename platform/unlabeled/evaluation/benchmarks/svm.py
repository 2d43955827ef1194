"""Linear support vector machines on frozen features: the VOC07 protocol."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from unlabeled.config.ranges import at_least
from unlabeled.errors import DataError
from unlabeled.evaluation.average_precision import area, eleven_points
from unlabeled.evaluation.benchmarks.base import Benchmark, Probe
from unlabeled.evaluation.layer_probe import of_layer
from unlabeled.evaluation.layers import Layer
from unlabeled.evaluation.linear_svm import (
    best_cost,
    features_named,
    fit_svm,
    over_ranks,
    problems,
    unit_rows,
)
from unlabeled.evaluation.presence import presence, require_presence, shown_classes
from unlabeled.registry import Component, register

log = logging.getLogger(__name__)


@register("benchmark", "svm")
class SVM(Benchmark):
    """One linear SVM a class on frozen features, by VISSL's protocol for VOC07.

    Features x / (||x|| + 1e-5); squared hinge loss and L2 penalty in the dual (LIBLINEAR); for
    every class the cost of the largest mean average precision in cross-validation on the training
    split, then a fit on all of it. Images that show a class only undecidedly ("difficult") are
    negatives in training and left out of its test, both as in VISSL; an image with one label shows
    that class alone. Metrics, in percent, means over classes: map (area under the curve, what
    VISSL and the papers report) and map_11_points (VOC's own measure of 2007).
    Raises DataError without labels, with differing classes, or where a class has fewer training
    images than there are folds. A class that no test image shows is left out and logged.
    Under DDP the ranks share the encoding and the classes.
    Reference: Goyal et al., arXiv:1905.01235, section 6.1; VISSL svm_trainer.py.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of `configs/benchmark/svm.yaml`."""

        costs: list[float] = field(
            default_factory=lambda: [0.01, 0.1, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 50.0, 100.0, 1e3]
        )
        """Costs of a violated margin to choose from (VISSL eval_resnet voc07)."""
        folds: int = 3
        """Parts of the training split in cross-validation (VISSL)."""
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
            yield from at_least(self, 2, "folds")
            yield from problems(self)

    config: Config

    @property
    def protocol(self) -> str:
        return (
            f"linear SVM a class on {features_named(self.config)}, cost by "
            f"{self.config.folds}-fold cross-validation, positives weighted "
            f"{self.config.positive_weight:g}, mean AP (VISSL; Goyal et al., arXiv:1905.01235, "
            "section 6.1)"
        )

    def run(self, probe: Probe) -> dict[str, float]:
        require_presence(probe)
        probe = of_layer(probe, self.config.layer, self.config.view)
        scores = self.scores(probe)
        shown = presence(probe.test, probe.features("test"))
        tested = shown_classes(shown)
        areas, points = [], []
        for number, name in enumerate(probe.test.classes):
            if number not in tested:
                log.warning("SVM: class %s left out: no test image shows it", name)
                continue
            decided = shown[:, number] != 0
            positive = shown[decided, number] == 1
            areas.append(area(scores[decided, number], positive))
            points.append(eleven_points(scores[decided, number], positive))
            log.debug("SVM: %s: AP %.2f", name, 100 * areas[-1])
        return {
            "map": 100 * float(np.mean(areas)),
            "map_11_points": 100 * float(np.mean(points)),
        }

    def scores(self, probe: Probe) -> np.ndarray:
        """Distances of the test images to every class's margin, float64 [n, C], on every rank.

        Test labels are not looked at.
        """
        train, classes = probe.features("train"), probe.train.classes
        shown = presence(probe.train, train) == 1  # [N, C]
        self._require_folds(shown, classes)
        rows, test = unit_rows(train.features), unit_rows(probe.features("test").features)
        found = over_ranks(
            range(len(classes)),
            lambda c: self._class_scores(rows, shown[:, c], test, classes[c], probe.seed),
        )
        return np.stack([found[number] for number in range(len(classes))], axis=1)

    def _class_scores(
        self, rows: np.ndarray, positive: np.ndarray, test: np.ndarray, name: str, seed: int
    ) -> np.ndarray:
        config = self.config
        cost = config.costs[0]
        if len(config.costs) > 1:
            cost = best_cost(
                rows, positive, costs=config.costs, folds=config.folds, recipe=config, seed=seed
            )
        machine = fit_svm(rows, positive, cost=cost, recipe=config, seed=seed)
        stopped = "" if machine.n_iter_ < config.max_iterations else ", stopped by max_iterations"
        log.info("SVM: %s: cost %g%s", name, cost, stopped)
        found: np.ndarray = machine.decision_function(test)
        return found

    def _require_folds(self, shown: np.ndarray, classes: tuple[str, ...]) -> None:
        """Every fold needs an image of the class and one without it."""
        fewest = np.minimum(shown.sum(axis=0), (~shown).sum(axis=0))
        if fewest.min() < self.config.folds:
            worst = int(fewest.argmin())
            raise DataError(
                f"class {classes[worst]} is in {int(shown[:, worst].sum())} of {len(shown)} "
                f"training images; {self.config.folds} folds need {self.config.folds} with it and "
                f"as many without; measure on more images or with fewer benchmark.folds"
            )
