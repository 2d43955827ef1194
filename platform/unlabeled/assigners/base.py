"""The contracts of the code-makers: online ones see a batch of scores, offline ones a data set."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field

from torch import Tensor, nn


class OnlineAssigner(nn.Module, abc.ABC):
    """Makes codes of a batch at every step; the constructor is `__init__(self, config)`."""

    @abc.abstractmethod
    def forward(self, scores: Tensor) -> Tensor:
        """Codes [B', K], rows summing to 1, of this rank's scores [B', K]; no gradient flows.

        The batch is that of all ranks together, each with as many rows.
        """


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
