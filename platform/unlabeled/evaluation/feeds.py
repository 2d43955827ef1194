"""Where a classifier's batches come from: features kept in memory, or encoded anew every epoch."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch
from torch import Tensor

from unlabeled.data.loader import StepBatches, batches
from unlabeled.data.sampling.shuffled import Shuffled
from unlabeled.data.transforms.base import Pipeline
from unlabeled.distributed import comm
from unlabeled.engine.build import training_images
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.classifier import Feed
from unlabeled.evaluation.features import FeatureSet

log = logging.getLogger(__name__)


def cached_feed(features: FeatureSet, *, batch_size: int, seed: int, device: torch.device) -> Feed:
    """Every row once an epoch, in an order that is a function of (seed, epoch).

    The last batch of an epoch may be smaller. Rows stay in host memory until their batch is due.
    """
    assert features.labels is not None
    rows, labels = features.features, features.labels
    order = Shuffled(Shuffled.Config(), num_samples=len(rows), seed=seed)

    def feed(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(rows), batch_size):
            stop = min(start + batch_size, len(rows))
            chosen = torch.from_numpy(order.indices(epoch, start, stop))
            yield rows[chosen].to(device), labels[chosen].to(device)

    return feed


def augmented_feed(probe: Probe, pipeline: Pipeline, *, batch_size: int) -> Feed:
    """Features of new training views every epoch; each rank encodes its share of every batch.

    Every rank is given the whole batch, in the same order whatever the world size. A remainder of
    the epoch's order that fills no batch is left out, as in pretraining; it differs between epochs.
    Broken images are replaced by others and logged in the first epoch.
    """
    ranks = comm.world_size()
    # A data set smaller than a batch is one batch, of as many images as the ranks can share.
    batch_size = min(batch_size, len(probe.train) // ranks * ranks)
    steps = len(probe.train) // max(1, batch_size)
    dataset = StepBatches(
        training_images(probe.train, probe.loader),
        pipeline,
        Shuffled(Shuffled.Config(), num_samples=len(probe.train), seed=probe.seed),
        seed=probe.seed,
        batch_size=batch_size,
        micro_steps=1,
        rank=comm.rank(),
        world_size=ranks,
        steps_per_epoch=steps,
    )

    def feed(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        broken: dict[str, str] = {}
        for batch in batches(
            dataset,
            range(epoch * steps, (epoch + 1) * steps),
            loader=probe.loader,
            device=probe.device,
        ):
            broken.update(batch.broken)
            assert batch.labels is not None
            features = _encode(probe, batch.views[0], rows=max(1, probe.batch_size // ranks))
            yield comm.all_gather(features), comm.all_gather(batch.labels)
        if broken and epoch == 0:
            name, reason = next(iter(broken.items()))
            log.warning(
                "%d training images cannot be decoded, others took their place; first %s (%s)",
                len(broken),
                name,
                reason,
            )

    return feed


@torch.no_grad()
def _encode(probe: Probe, images: Tensor, *, rows: int) -> Tensor:
    """Float32 features [B, D] of uint8 images [B, 3, h, w] on the device, `rows` at a time."""
    parts = torch.split(images, rows)
    return torch.cat([probe.encode(probe.normalize(part)).float() for part in parts])
