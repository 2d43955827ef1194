"""The contracts of the code-makers: those of a batch see scores, offline ones a data set."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from unlabeled.methods.base import Progress


class BatchAssigner(nn.Module, abc.ABC):
    """Makes codes of a batch at every step; the constructor is `__init__(self, config)`.

    The method calls `begin` once, and in every step `before_step` -> `forward`, once for each
    micro-batch -> `after_step`. What is kept from step to step is a buffer, equal on all ranks.
    """

    makes_codes: ClassVar[bool] = True
    """Whether what it makes are codes, rows that sum to 1; otherwise they are other targets."""

    def begin(self, num_scores: int) -> None:
        """Told before training how many scores a row has."""

    def before_step(self, progress: Progress) -> None:
        """Told where the run stands."""

    @abc.abstractmethod
    def forward(self, scores: Tensor) -> Tensor:
        """Codes [B', K] of this rank's scores [B', K]; no gradient flows.

        The batch is that of all ranks together, each with as many rows.
        """

    def after_step(self) -> None:
        """Called when all micro-batches of a step have their codes; by all ranks together."""


class OnlineAssigner(BatchAssigner):
    """A code-maker to which the scores of a batch are all there is: it remembers nothing."""


@dataclass(frozen=True)
class OfflineCodes:
    """One clustering of the whole data set.

    labels: [n] int64, the cluster of each of this rank's rows; centroids: [K, D] unit rows, equal
    on every rank, or None where prototypes are learned; iterations: updates made; scalars: numbers
    for the log, equal on every rank.
    """

    labels: Tensor
    centroids: Tensor | None
    iterations: int
    scalars: dict[str, float] = field(default_factory=dict)


class OfflineAssigner(abc.ABC):
    """Makes codes of the whole data set once an epoch; `__init__(self, config)`."""

    @abc.abstractmethod
    def assign(
        self,
        features: Tensor,
        *,
        num_clusters: int,
        seed: int,
        prototypes: Tensor | None = None,
    ) -> OfflineCodes:
        """Cluster the features [n, D] (unit rows) that all ranks hold together, n of them here.

        `seed` decides every random choice and must be equal on all ranks, as `prototypes` [K, D]
        (unit rows) must; an assigner that finds its own centroids ignores the latter.
        """
