"""Copy detection: is the original found for a picture that was cropped, printed or blurred."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from unlabeled.evaluation.benchmarks.base import Benchmark, Probe
from unlabeled.evaluation.search import places, ranks_of, require_queries, trapezoid_ap
from unlabeled.evaluation.whitening import whitening
from unlabeled.evaluation.whole_images import square, whole_features
from unlabeled.registry import Component, register

log = logging.getLogger(__name__)


@register("benchmark", "copy_detection")
class CopyDetection(Benchmark):
    """Originals ranked by cosine similarity to each copy, by DINO's protocol for Copydays.

    Images are resized to a square, whatever their proportions; features are whitened by the images
    of `whitening` (their mean taken off, divided by the root of the eigenvalues of their second
    moment) and compared by cosine. Metric, in percent: map, the mean over copies of the average
    precision (trapezoids) within the first `top` images; an original beyond them is not found.
    Features are the backbone's pooled ones; DINO's numbers of ViT add pooled patch tokens.
    Raises DataError for a data set without queries and for an image that cannot be decoded.
    Under DDP the ranks share the encoding and each ranks all copies.
    Reference: Caron et al., DINO, arXiv:2104.14294, section 4.2.2, and its eval_copy_detection.py.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of `configs/benchmark/copy_detection.yaml`."""

        image_size: int = 320
        """Side of the square, in pixels (DINO)."""
        top: int = 20
        """Length of the list that an original must be in (DINO)."""
        whitening: Annotated[Component, "dataset"] | None = None
        """Images to learn the whitening from, their train split (DINO: 20,000 of YFCC100M); null:
        features are not whitened."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            for name in ("image_size", "top"):
                if getattr(self, name) < 1:
                    yield name, f"must be 1 or more, got {getattr(self, name)}"

    config: Config

    @property
    def protocol(self) -> str:
        chosen = self.config.whitening
        features = "features" if chosen is None else f"features whitened by {chosen.name}"
        return (
            f"copy detection by cosine of {features}, {self.config.image_size} px squares, mAP "
            f"within the first {self.config.top} (DINO, arXiv:2104.14294, section 4.2.2)"
        )

    def run(self, probe: Probe) -> dict[str, float]:
        queries = require_queries(probe)
        resize = square(self.config.image_size)
        database = whole_features(probe, probe.train, resize)
        copies = whole_features(probe, probe.test, resize)
        if self.config.whitening is not None:
            others = self.config.whitening.build(split="train")
            if len(others) < database.shape[1]:
                log.warning(
                    "whitening by %d images of features with %d dimensions: give more images",
                    *(len(others), database.shape[1]),
                )
            whiten = whitening(whole_features(probe, others, resize))
            database, copies = whiten(database), whiten(copies)
        precisions = []
        for place, query in zip(places(copies, database, probe.device), queries, strict=True):
            relevant = np.concatenate([query.easy, query.hard])
            ranks = ranks_of(place, relevant, query.junk)
            precisions.append(trapezoid_ap(ranks[ranks < self.config.top], len(relevant)))
        return {"map": 100 * float(np.mean(precisions))}
