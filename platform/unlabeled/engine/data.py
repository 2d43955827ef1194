"""The training data as the trainer sees it: an endless-looking stream of batches on the device."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch

from unlabeled.config.schema import LoaderConfig
from unlabeled.data.loader import StepBatches, batches, range_batches
from unlabeled.data.normalize import Normalize
from unlabeled.data.pixels.device import DeviceSteps
from unlabeled.data.sampling.listed import Listed
from unlabeled.data.transforms.base import Pipeline
from unlabeled.data.types import Batch
from unlabeled.engine.data_identity import DataIdentity
from unlabeled.errors import DataError

log = logging.getLogger(__name__)
NAMED_IN_LOG = 20
INITIAL_PASS_EPOCH = -1
"""The pass that fills memory banks draws its own augmentations, in the order of epoch 0."""


class BrokenImages:
    """Counts and names the images that could not be decoded; too large a share stops the run."""

    def __init__(self, num_samples: int, max_share: float) -> None:
        self.num_samples, self.max_share = num_samples, max_share
        self.reasons: dict[str, str] = {}

    def note(self, batch: Batch) -> None:
        """Take in one batch; raises DataError above the configured share."""
        for name, reason in batch.broken:
            if name not in self.reasons:
                self.reasons[name] = reason
                if len(self.reasons) <= NAMED_IN_LOG:
                    log.warning("skipped image %s: %s", name, reason)
        if len(self.reasons) > self.max_share * self.num_samples:
            listed = "; ".join(f"{n} ({r})" for n, r in list(self.reasons.items())[:3])
            raise DataError(
                f"{len(self.reasons)} of {self.num_samples} images could not be decoded, more "
                f"than loader.max_broken_share={self.max_share:g} allows: {listed}. Mend or remove "
                "them, or raise the share"
            )


class TrainingData:
    """Batches of views from any step on, finished and normalised on the device."""

    def __init__(
        self,
        dataset: StepBatches,
        initial: StepBatches,
        evaluation: Pipeline,
        *,
        settings: LoaderConfig,
        normalize: Normalize,
        device: torch.device,
        num_samples: int,
        steps_per_epoch: int,
        identity: DataIdentity,
    ) -> None:
        self.identity = identity
        self._dataset, self._initial, self._evaluation = dataset, initial, evaluation
        self._settings, self._normalize = settings, normalize
        self._device, self._steps = device, DeviceSteps()
        self._steps_per_epoch = steps_per_epoch
        self.broken = BrokenImages(num_samples, settings.max_broken_share)

    def training(
        self, first_step: int, last_step: int, order: np.ndarray | None = None
    ) -> Iterator[Batch]:
        """Micro-batches of the steps `first_step..last_step-1`.

        order: the samples at the positions of every epoch; null: those of the sampler.
        """
        dataset = self._dataset
        if order is not None:
            dataset = copy(dataset)
            dataset.sampler = Listed(order)
        return self._stepwise(dataset, range(first_step, last_step))

    def initial_pass(self) -> Iterator[Batch]:
        """One pass over the first epoch, for methods that fill a memory bank before training."""
        steps = range(self._steps_per_epoch)
        return (b.without_labels() for b in self._stepwise(self._initial, steps))

    def central_pass(self) -> Iterator[Batch]:
        """This rank's share of all images in the evaluation view, in the data set's order.

        The view of a broken image is black.
        """
        dataset = self._dataset
        images, ranks = len(dataset.source), dataset.world_size
        first, end = (images * place // ranks for place in (dataset.rank, dataset.rank + 1))
        # As many batches on every rank: a sharded backbone is gathered for each of them.
        count = -(-images // (ranks * dataset.rows))
        cuts = [first + (end - first) * cut // count for cut in range(count + 1)]
        found = range_batches(
            dataset.source,
            self._evaluation,
            [range(*pair) for pair in pairwise(cuts)],
            batch_size=dataset.rows,
            loader=self._settings,
            device=self._device,
        )
        return (batch.without_labels() for batch in self._finished(found))

    def _stepwise(self, dataset: StepBatches, steps: range) -> Iterator[Batch]:
        found = batches(dataset, steps, loader=self._settings, device=self._device)
        return self._finished(found)

    def _finished(self, found: Iterator[Batch]) -> Iterator[Batch]:
        for batch in found:
            self.broken.note(batch)
            views = batch.views
            if batch.deferred:
                views = self._steps.finish(views, batch.deferred)
            yield replace(batch, views=[self._normalize(view) for view in views], deferred=())
