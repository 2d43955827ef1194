"""Where a classifier's batches come from: features kept in memory, or encoded anew every epoch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from unlabeled.data.sampling.shuffled import Shuffled
from unlabeled.data.transforms.base import Pipeline
from unlabeled.distributed import comm
from unlabeled.engine.build import training_images
from unlabeled.evaluation.benchmarks.base import Probe, require_rows
from unlabeled.evaluation.classifier import Feed
from unlabeled.evaluation.features import FeatureSet
from unlabeled.evaluation.training_views import training_views


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
    """Features of `training_views`; each rank encodes its share and is given the whole batch.

    The batches and their order are the same whatever the world size.
    """
    ranks = comm.world_size()
    images = training_images(probe.train, probe.loader)
    views = training_views(probe, images, pipeline, batch_size=batch_size)

    def feed(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in views(epoch):
            assert batch.labels is not None
            features = _encode(probe, batch.views[0], rows=max(1, probe.batch_size // ranks))
            yield comm.all_gather(features), comm.all_gather(batch.labels)

    return feed


@torch.no_grad()
def _encode(probe: Probe, images: Tensor, *, rows: int) -> Tensor:
    """Float32 features [B, D] of uint8 images [B, 3, h, w] on the device, `rows` at a time."""
    found = torch.cat([probe.encode(probe.normalize(p)).float() for p in torch.split(images, rows)])
    require_rows(found, probe.feature_dim)
    return found
