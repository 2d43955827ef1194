"""Search for landmarks: what of a query's landmark comes first in a database."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from unlabeled.config.ranges import at_least
from unlabeled.data.sources.queries import Relevance
from unlabeled.evaluation.benchmarks.base import Benchmark, Probe
from unlabeled.evaluation.search import (
    places,
    precision_at,
    ranks_of,
    require_queries,
    trapezoid_ap,
)
from unlabeled.evaluation.whole_images import longest_side, whole_features
from unlabeled.registry import register

log = logging.getLogger(__name__)


@register("benchmark", "retrieval")
class Retrieval(Benchmark):
    """Image retrieval by cosine similarity, by the protocol of revisited Oxford and Paris.

    Images keep their proportions, with the longest side at most `image_size`; features are summed
    over `scales` and scaled to unit length. medium: easy and hard images are right and junk does
    not count; hard: hard ones are right, easy ones and junk do not count. Metrics, in percent:
    map_medium, map_hard (trapezoids), mp<k>_medium and mp<k>_hard, means over the queries that have
    anything to find in that setting; a setting without such queries is left out and logged.
    Raises DataError for a data set without queries and for an image that cannot be decoded.
    Under DDP the ranks share the encoding and each ranks all queries.
    Reference: Radenovic et al., arXiv:1803.11285; sizes and scales: DINO, arXiv:2104.14294, section
    4.2.1 and its eval_image_retrieval.py.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of `configs/benchmark/retrieval.yaml`."""

        image_size: int = 224
        """Longest side, in pixels (DINO: 224 on ROxford, 512 on RParis)."""
        scales: list[float] = field(default_factory=lambda: [1.0])
        """Sizes that an image is encoded at (DINO: 1 on ROxford; 1, 1/sqrt2, 1/2 on RParis)."""
        at: list[int] = field(default_factory=lambda: [1, 5, 10])
        """Lengths of the lists that mean precision is measured on."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            yield from at_least(self, 1, "image_size")
            if not self.scales or min(self.scales) <= 0:
                yield "scales", f"needs one or more positive numbers, got {self.scales}"
            if any(k < 1 for k in self.at):
                yield "at", f"lists have 1 image or more, got {self.at}"

    config: Config

    @property
    def protocol(self) -> str:
        scales = ", ".join(f"{scale:.3g}" for scale in self.config.scales)
        return (
            f"retrieval by cosine, longest side {self.config.image_size}, scales {scales}, mAP "
            "medium and hard (Radenovic et al., arXiv:1803.11285)"
        )

    def run(self, probe: Probe) -> dict[str, float]:
        queries = require_queries(probe)
        resize = longest_side(self.config.image_size)
        database, asked = (
            whole_features(probe, source, resize, self.config.scales)
            for source in (probe.train, probe.test)
        )
        return measure(places(asked, database, probe.device), queries, self.config.at)


def measure(place: np.ndarray, queries: tuple[Relevance, ...], at: list[int]) -> dict[str, float]:
    """The metrics, in percent, from the place int64 [n, N] of every row in every query's list."""
    found = {"medium": [], "hard": []}  # type: dict[str, list[list[float]]]
    for row, query in zip(place, queries, strict=True):
        for setting, relevant, junk in (
            ("medium", np.concatenate([query.easy, query.hard]), query.junk),
            ("hard", query.hard, np.concatenate([query.junk, query.easy])),
        ):
            if len(relevant):
                ranks = ranks_of(row, relevant, junk)
                precisions = [precision_at(ranks, k) for k in at]
                found[setting].append([trapezoid_ap(ranks, len(relevant)), *precisions])
    metrics = {}
    for column, name in enumerate(["map", *(f"mp{k}" for k in at)]):
        for setting, rows in found.items():
            if rows:
                metrics[f"{name}_{setting}"] = 100 * float(np.mean([row[column] for row in rows]))
    for setting, rows in found.items():
        if not rows:
            log.warning("retrieval: setting %s left out: no query has images for it", setting)
    return metrics
