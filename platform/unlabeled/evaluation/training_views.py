"""Augmented batches of labelled images, anew every epoch: what a benchmark that trains looks at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

from unlabeled.data.loader import StepBatches, batches
from unlabeled.data.pixels.device import DeviceSteps
from unlabeled.data.sampling.shuffled import Shuffled
from unlabeled.data.sources.base import Source
from unlabeled.data.transforms.base import Pipeline
from unlabeled.data.transforms.random_crop import RandomCrop
from unlabeled.data.types import Batch
from unlabeled.distributed import comm
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.registry import Component, get

log = logging.getLogger(__name__)


def training_view(chosen: Component | None, probe: Probe) -> Pipeline:
    """The view that a benchmark names for training.

    For null SwAV's: a random resized crop and a flip, of the evaluation view's size.
    """
    if chosen is not None:
        pipeline: Pipeline = chosen.build()
        return pipeline
    return RandomCrop(RandomCrop.Config(size=probe.pipeline.views[0].size))


def view_problems(field: str, transform: Component | None) -> Iterator[tuple[str, str]]:
    """Faults of a field that names the view of a benchmark: it must be one view."""
    if transform is None:
        return
    if not issubclass(get("transform", transform.name), Pipeline):
        yield field, f"{transform.name!r} makes no view by itself"
    elif (views := len(transform.build().views)) != 1:
        yield field, f"must emit one view, not {views}; try random_crop"


Views = Callable[[int], Iterator[Batch]]
"""The batches of an epoch: this rank's share of each, uint8 views on the device, with labels."""


def training_views(probe: Probe, images: Source, pipeline: Pipeline, *, batch_size: int) -> Views:
    """Views of every image in an order that is a function of (probe.seed, epoch).

    batch_size counts over all ranks; a data set smaller than a batch is one batch, of as many
    images as the ranks can share. Every image is seen in every epoch: where the last ones do not
    fill a batch, the first of the epoch's order are seen again with them, so that batch statistics
    are of whole batches and the ranks have equal shares. Broken images are replaced by others and
    logged in the first epoch. ConfigError if batch_size does not divide by the ranks.
    """
    ranks = comm.world_size()
    batch_size = min(batch_size, -(-len(images) // ranks) * ranks)
    steps = -(-len(images) // batch_size)
    dataset = StepBatches(
        images,
        pipeline,
        Shuffled(Shuffled.Config(), num_samples=len(images), seed=probe.seed),
        seed=probe.seed,
        batch_size=batch_size,
        micro_steps=1,
        rank=comm.rank(),
        world_size=ranks,
        steps_per_epoch=steps,
        fill_last=True,
    )
    device_steps = DeviceSteps()

    def views(epoch: int) -> Iterator[Batch]:
        broken: dict[str, str] = {}
        places = range(epoch * steps, (epoch + 1) * steps)
        for batch in batches(dataset, places, loader=probe.loader, device=probe.device):
            broken.update(batch.broken)
            if batch.deferred:
                finished = device_steps.finish(batch.views, batch.deferred)
                batch = replace(batch, views=finished, deferred=())
            yield batch
        if broken and epoch == 0:
            name, reason = next(iter(broken.items()))
            log.warning(
                "%d training images cannot be decoded, others took their place; first %s (%s)",
                len(broken),
                name,
                reason,
            )

    return views
