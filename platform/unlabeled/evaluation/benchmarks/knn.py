"""Classification by the nearest training images: nothing is learned, so nothing can be tuned."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

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

# Similarities in memory at once: 1024 x 65536 float32 = 256 MB.
TEST_BLOCK = 1024
TRAIN_BLOCK = 65536


@register("benchmark", "knn")
class KNN(Benchmark):
    """Weighted k-nearest-neighbour classification, exact.

    With cosine similarity s between features, class c of a test image gets
    sum_{i in the k nearest, y_i = c} exp(s_i / temperature). Metrics, in percent: top1 (k =
    report_k), top1_k<k> for every k, top5_k<report_k>. Of equally similar training images the
    earlier one is nearer, of equal votes the lower class number wins. With leave_one_out every
    training image is classified by all the others, and no test split is looked at.
    Raises DataError without labels, with differing classes, or with fewer than report_k training
    images (others, when one is left out); other values of k that exceed them are left out and
    logged.
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

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            if not self.k or min(self.k) < 1:
                yield "k", f"needs one or more numbers of 1 or more, got {self.k}"
            if self.report_k not in self.k:
                yield "report_k", f"must be one of k = {self.k}, got {self.report_k}"
            if self.temperature <= 0:
                yield "temperature", f"must be positive, got {self.temperature}"

    config: Config

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
            near, indices = nearest_others(rows, k=max(sizes))
        else:
            sizes = self._usable(len(train), "training images")
            near, indices = nearest(train.features, rows, k=max(sizes))
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


@torch.no_grad()
def nearest(train: Tensor, test: Tensor, *, k: int) -> tuple[Tensor, Tensor]:
    """The k training rows of largest cosine similarity to each test row, nearest first.

    [N, D], [n, D] -> similarities float32 [n, k], indices int64 [n, k], on the device of `test`;
    k <= N. Exact; equal similarities are ordered by index. `train` may stay in host memory: blocks
    of it visit the device once each.
    """
    test = F.normalize(test.float(), dim=1)
    near = [test.new_zeros(len(rows), 0) for rows in torch.split(test, TEST_BLOCK)]
    indices = [torch.zeros_like(found, dtype=torch.int64) for found in near]
    for start in range(0, len(train), TRAIN_BLOCK):
        block = train[start : start + TRAIN_BLOCK].to(test.device)
        block = F.normalize(block.float(), dim=1)  # [b, D]
        for number, rows in enumerate(torch.split(test, TEST_BLOCK)):
            found, where = _largest(rows @ block.T, k)
            # Earlier blocks stand first and the sort is stable: the earlier index stays ahead.
            values = torch.cat([near[number], found], dim=1)
            places = torch.cat([indices[number], where + start], dim=1)
            values, order = values.sort(dim=1, descending=True, stable=True)
            near[number], indices[number] = values[:, :k], places.gather(1, order[:, :k])
    return torch.cat(near), torch.cat(indices)


def nearest_others(features: Tensor, *, k: int) -> tuple[Tensor, Tensor]:
    """The k other rows of largest cosine similarity to each row, nearest first.

    [N, D] -> similarities float32 [N, k], indices int64 [N, k]; k < N. Exact, ordered as `nearest`
    orders.
    """
    near, indices = nearest(features, features, k=k + 1)
    own = indices == torch.arange(len(features), device=indices.device).unsqueeze(1)
    # A row goes behind its neighbours and is cut off. Where so many duplicates stand before it that
    # it is not among the k + 1, the first k of them are the neighbours as they are.
    order = own.int().argsort(dim=1, stable=True)[:, :k]
    return near.gather(1, order), indices.gather(1, order)


def _largest(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The (at most k) largest values of every row and their columns; of equal values, the first."""
    # One more than asked shows whether a tie runs across the cut, where topk chooses as it likes.
    values, columns = similarity.topk(min(k + 1, similarity.shape[1]), dim=1)
    if values.shape[1] > k:
        tied = values[:, k - 1] == values[:, k]
        exact = similarity[tied].sort(dim=1, descending=True, stable=True)
        values[tied] = exact.values[:, : k + 1]
        columns[tied] = exact.indices[:, : k + 1]
    columns, order = columns[:, :k].sort(dim=1)
    values, order = values[:, :k].gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, order)


def votes(near: Tensor, voters: Tensor, *, temperature: float, num_classes: int) -> Tensor:
    """Sum of exp((s - s_max) / temperature) per class, for similarities and labels [n, k], sorted.

    Dividing a row by its largest weight changes no order and cannot overflow at low temperatures.
    """
    weights = ((near - near[:, :1]) / temperature).exp()  # [n, k]
    scores = near.new_zeros(len(near), num_classes)
    for place in range(near.shape[1]):  # one addition a row at a time: the order of sums is fixed
        scores.scatter_add_(1, voters[:, place : place + 1], weights[:, place : place + 1])
    return scores
