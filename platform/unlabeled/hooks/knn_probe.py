"""The online k-NN probe: what the features are worth while they are being learned."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from unlabeled.config.ranges import positive
from unlabeled.distributed.group import same_buffers
from unlabeled.hooks.base import Hook, Record
from unlabeled.registry import register

if TYPE_CHECKING:
    from unlabeled.engine.trainer import Trainer

log = logging.getLogger(__name__)


@register("hook", "knn_probe")
class KnnProbe(Hook):
    """Weighted k-NN accuracy of the current backbone on the labelled splits, every few epochs.

    Votes exp(cosine / temperature) of the k nearest training images. Features come from the
    evaluation view, in evaluation mode, without gradient: the probe changes no weight, no
    statistic and no random state, and labels reach nothing but the printed number. Data sets
    without labels or without a test split are passed over with one line in the log. Every rank
    encodes its share. Reference: Wu et al., CVPR 2018; Caron et al., ICCV 2021.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Protocol and frequency."""

        every_epochs: int = 1
        """Epochs (rounds, where those are shorter) between two probes."""
        k: int = 20
        """Neighbours that vote."""
        temperature: float = 0.07
        """Temperature of the votes (DINO)."""
        max_samples: int = 20_000
        """Training images used as neighbours, evenly spaced over the data set."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges."""
            yield from positive(self, "every_epochs", "k", "temperature", "max_samples")

    def before_fit(self, trainer: Trainer) -> None:
        """Say once when there is nothing to probe."""
        data = trainer.probe_data
        if isinstance(data, str):
            log.info("no k-NN probe: %s", data)
        elif min(len(data.train), self.config.max_samples) < self.config.k:
            log.info(
                "no k-NN probe: k=%d neighbours are more than its %d training images; give a "
                "smaller hooks.knn_probe.k",
                self.config.k,
                min(len(data.train), self.config.max_samples),
            )

    def after_epoch(self, trainer: Trainer, record: Record) -> None:
        """Add `knn_top1` to the epoch's record."""
        last = trainer.step == trainer.settings.last_step
        data = trainer.probe_data
        if isinstance(data, str) or not (last or trainer.ends_round(self.config.every_epochs)):
            return
        from unlabeled.data.sources.subset import evenly_spaced
        from unlabeled.evaluation.accuracy import top_accuracy
        from unlabeled.evaluation.benchmarks.knn import knn_classify
        from unlabeled.evaluation.features import extract

        same_buffers(trainer.method, trainer.method.rank_buffers)
        trainer.method.eval()
        with torch.no_grad():
            sets = [
                extract(
                    trainer.method.encode,
                    source,
                    data.pipeline,
                    normalize=data.normalize,
                    device=trainer.device,
                    batch_size=data.batch_size,
                    loader=data.loader,
                    channels_last=trainer.config.channels_last,
                )
                for source in (evenly_spaced(data.train, self.config.max_samples), data.test)
            ]
        trainer.method.train()
        train, test = sets
        assert train.labels is not None and test.labels is not None, "probe data has labels"
        if len(train) < self.config.k:
            return
        scores = knn_classify(
            train.features,
            train.labels,
            test.features.to(trainer.device),
            k=self.config.k,
            temperature=self.config.temperature,
            num_classes=data.train.num_classes,
        )
        record["knn_top1"] = top_accuracy(scores, test.labels.to(scores.device), 1)
