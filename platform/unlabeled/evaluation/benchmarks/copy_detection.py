"""Copy detection: is the original found for a picture that was cropped, printed or blurred."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np

from unlabeled.config.ranges import at_least
from unlabeled.evaluation.benchmarks.base import Benchmark, Probe
from unlabeled.evaluation.search import places, ranks_of, require_queries, trapezoid_ap
from unlabeled.evaluation.token_features import cls_and_gem, require_tokens
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
    Raises ConfigError if `features` asks a backbone for tokens that it does not have, DataError for
    a data set without queries and for an image that cannot be decoded.
    Under DDP the ranks share the encoding and each ranks all copies.
    Reference: Caron et al., DINO, arXiv:2104.14294, section 4.2.2, and its eval_copy_detection.py.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of `configs/benchmark/copy_detection.yaml`."""

        features: Literal["output", "cls_and_gem"] = "output"
        """output: what the backbone returns; cls_and_gem: a ViT's CLS token and its patch tokens,
        pooled by their generalised mean (DINO)."""
        gem_power: float = 4.0
        """Power of the generalised mean (DINO); 1 is the mean, more is nearer to the maximum."""
        image_size: int = 320
        """Side of the square, in pixels (DINO)."""
        top: int = 20
        """Length of the list that an original must be in (DINO)."""
        whitening: Annotated[Component, "dataset"] | None = None
        """Images to learn the whitening from, their train split (DINO: 20,000 of YFCC100M); null:
        features are not whitened."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            yield from at_least(self, 1, "gem_power", "image_size", "top")

    config: Config

    @property
    def protocol(self) -> str:
        chosen = self.config.whitening
        features = (
            "features"
            if self.config.features == "output"
            else f"CLS and patch tokens (generalised mean, power {self.config.gem_power:g})"
        )
        whitened = "" if chosen is None else f" whitened by {chosen.name}"
        return (
            f"copy detection by cosine of {features}{whitened}, {self.config.image_size} px "
            f"squares, mAP within the first {self.config.top} (DINO, arXiv:2104.14294, section "
            "4.2.2)"
        )

    def run(self, probe: Probe) -> dict[str, float]:
        queries = require_queries(probe)
        probe = self.described(probe)
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

    def described(self, probe: Probe) -> Probe:
        """The probe with the features that images are compared by."""
        if self.config.features == "output":
            return probe
        backbone = require_tokens(probe.backbone, "benchmark.features")
        return replace(
            probe,
            encode=cls_and_gem(backbone, self.config.gem_power),
            feature_dim=2 * backbone.feature_dim,
            cache={},
        )
