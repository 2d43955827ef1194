"""Classification by the nearest training images: nothing is learned, so nothing can be tuned."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from unlabeled.clustering.faiss_library import import_faiss
from unlabeled.clustering.neighbours import nearest, nearest_others
from unlabeled.config.ranges import positive
from unlabeled.data.sources.base import Split
from unlabeled.errors import DataError
from unlabeled.evaluation.accuracy import top_accuracy
from unlabeled.evaluation.benchmarks.base import (
    Benchmark,
    Probe,
    require_labels,
    require_split_labels,
)
from unlabeled.registry import register

log = logging.getLogger(__name__)


@register("benchmark", "knn")
class KNN(Benchmark):
    """Weighted k-nearest-neighbour classification, exact.

    With cosine similarity s between features, class c of a test image gets
    sum_{i in the k nearest, y_i = c} exp(s_i / temperature). Metrics, in percent: top1 (k =
    report_k), top1_k<k> for every k, top5_k<report_k>. Of equally similar training images the
    earlier one is nearer (search=torch), of equal votes the lower class number wins. With
    leave_one_out every training image is classified by all the others, and no test split is looked
    at.
    Raises DataError without labels, with differing classes, or with fewer than report_k training
    images (others, when one is left out); other values of k that exceed them are left out and
    logged. EnvironmentProblem for search=faiss where faiss is not installed.
    Under DDP the ranks share the encoding and each computes all votes.
    Reference: Caron et al., DINO, arXiv:2104.14294, section 4.1 and its eval_knn.py (k = 20 best);
    Wu et al., arXiv:1805.01978, section 3.4.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of `configs/benchmark/knn.yaml`."""

        k: list[int] = field(default_factory=lambda: [10, 20, 100, 200])
        """Numbers of neighbours that vote (DINO eval_knn.py)."""
        report_k: int = 20
        """The k of the main metric top1; one of `k`."""
        temperature: float = 0.07
        """Temperature of the votes exp(similarity / temperature) (DINO eval_knn.py)."""
        leave_one_out: bool = False
        """Classify the training images by each other, for data without a test split."""
        search: Literal["torch", "faiss"] = "torch"
        """Who finds the neighbours: torch, on the device, or faiss, on the CPU. Both are exact and
        differ in the order of equally similar images alone."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            if not self.k or min(self.k) < 1:
                yield "k", f"needs one or more numbers of 1 or more, got {self.k}"
            if self.report_k not in self.k:
                yield "report_k", f"must be one of k = {self.k}, got {self.report_k}"
            yield from positive(self, "temperature")

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.search == "faiss":
            import_faiss("search")

    @property
    def measured(self) -> Split:
        return "train" if self.config.leave_one_out else "test"

    @property
    def protocol(self) -> str:
        over = "all other training" if self.config.leave_one_out else "all training"
        return (
            f"weighted {self.config.report_k}-NN over {over} images, cosine similarity s, "
            f"votes exp(s / {self.config.temperature:g}) (DINO, arXiv:2104.14294, section 4.1)"
        )

    def run(self, probe: Probe) -> dict[str, float]:
        if self.config.leave_one_out:
            require_split_labels("train", probe.train)
        else:
            require_labels(probe)
        train, queries = probe.features("train"), probe.features(self.measured)
        assert train.labels is not None and queries.labels is not None
        rows = queries.features.to(probe.device)
        if self.config.leave_one_out:
            sizes = self._usable(len(train) - 1, "other training images")
            near, indices = nearest_others(rows, k=max(sizes), search=self.config.search)
        else:
            sizes = self._usable(len(train), "training images")
            near, indices = nearest(train.features, rows, k=max(sizes), search=self.config.search)
        voters = train.labels.to(probe.device)[indices]  # [n, max k]
        labels = queries.labels.to(probe.device)
        metrics = {"top1": 0.0}  # first in order; its value follows from one of the k
        for k in sizes:
            scores = votes(
                near[:, :k],
                voters[:, :k],
                temperature=self.config.temperature,
                num_classes=probe.train.num_classes,
            )
            metrics[f"top1_k{k}"] = top_accuracy(scores, labels, 1)
            if k == self.config.report_k:
                metrics["top1"] = metrics[f"top1_k{k}"]
                # Fewer than five neighbours cannot name five classes.
                metrics[f"top5_k{k}"] = top_accuracy(scores, labels, min(5, k))
        return metrics

    def _usable(self, count: int, what: str) -> list[int]:
        if self.config.report_k > count:
            raise DataError(
                f"report_k = {self.config.report_k} neighbours are more than the {count} {what}; "
                f"give benchmark.report_k (and benchmark.k) of at most {count}"
            )
        too_large = [k for k in self.config.k if k > count]
        if too_large:
            log.warning("k-NN: k = %s left out: only %d %s", too_large, count, what)
        return sorted({k for k in self.config.k if k <= count})


def knn_classify(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    *,
    k: int,
    temperature: float,
    num_classes: int,
) -> Tensor:
    """Votes of the k nearest training rows for every class; the largest is the prediction.

    [N, D], [N], [n, D] -> float32 [n, num_classes] on the device of the test rows. Each row is
    scaled so that the nearest neighbour has weight 1. DataError if k exceeds N.
    """
    if k > len(train_features):
        raise DataError(f"k = {k} neighbours of only {len(train_features)} training rows")
    near, indices = nearest(train_features, test_features, k=k)
    voters = train_labels.to(test_features.device)[indices]
    return votes(near, voters, temperature=temperature, num_classes=num_classes)


def votes(near: Tensor, voters: Tensor, *, temperature: float, num_classes: int) -> Tensor:
    """Sum of exp((s - s_max) / temperature) per class, for similarities and labels [n, k], sorted.

    Dividing a row by its largest weight changes no order and cannot overflow at low temperatures.
    """
    weights = ((near - near[:, :1]) / temperature).exp()  # [n, k]
    scores = near.new_zeros(len(near), num_classes)
    for place in range(near.shape[1]):  # one addition a row at a time: the order of sums is fixed
        scores.scatter_add_(1, voters[:, place : place + 1], weights[:, place : place + 1])
    return scores
