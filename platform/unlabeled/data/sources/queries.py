"""The contract of data sets to search: a database, queries, and what each should find."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from unlabeled.data.sources.base import Source


@dataclass(frozen=True)
class Relevance:
    """What one query should find, as places in the database (int64, without repetition).

    easy and hard: images of the same thing; junk: too unclear to count, neither right nor wrong.
    All others are wrong.
    """

    easy: np.ndarray
    hard: np.ndarray
    junk: np.ndarray


class QuerySource(Source):
    """A source whose train split is the database and whose test split is the queries.

    `relevance`: one for each query, in the order of the test split; empty in the train split.
    """

    relevance: tuple[Relevance, ...] = ()

    def fingerprint(self) -> str:
        """A short hash of names and relevance."""
        digest = hashlib.sha256(super().fingerprint().encode())
        for query in self.relevance:
            for places in (query.easy, query.hard, query.junk):
                digest.update(np.sort(places).astype(np.int64).tobytes() + b"|")
        return digest.hexdigest()[:16]
