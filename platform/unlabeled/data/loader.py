"""Batches of views, each a pure function of the step: no hidden state, however they are loaded.

Which images a batch holds, what is drawn for them and what replaces a broken one depend only on
(seed, step, micro step, rank, world size), so a run that was killed goes on with the same batches,
and worker processes, prefetching and pinning change nothing but speed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from unlabeled.data.decode import BrokenImage
from unlabeled.data.randomness import mix
from unlabeled.data.sampling.base import Sampler
from unlabeled.data.sources.base import Source
from unlabeled.data.transforms.base import Pipeline, SampleKey
from unlabeled.data.types import Batch
from unlabeled.errors import ConfigError, DataError, UserError

T = TypeVar("T")

# Replacements tried for one broken image: where every tenth is broken, all fail once in 10^17.
MAX_ATTEMPTS = 16


class StepBatches(Dataset[Batch]):
    """A rank's batches, addressed by (global step, micro step).

    Step t is step s = t mod steps_per_epoch of epoch e = t // steps_per_epoch, and covers the
    positions [s * batch_size, (s + 1) * batch_size) of the epoch's order. They are split into
    `micro_steps` equal parts, and each of these into one contiguous share per rank.

    A broken image is replaced by another one, a pure function of (seed, epoch, index, attempt);
    Batch.indices and labels are those of the replacement, Batch.broken names what was replaced.
    `augment_epoch` takes the place of the epoch in the views' randomness (not in the order).
    ConfigError if batch_size does not divide into the shares; DataError if an epoch does not fit
    the data set, or if MAX_ATTEMPTS replacements in a row are broken as well.
    """

    def __init__(
        self,
        source: Source,
        pipeline: Pipeline,
        sampler: Sampler,
        *,
        seed: int,
        batch_size: int,
        micro_steps: int,
        rank: int,
        world_size: int,
        steps_per_epoch: int,
        augment_epoch: int | None = None,
    ) -> None:
        if batch_size < 1 or batch_size % (micro_steps * world_size):
            raise ConfigError(
                f"batch_size: {batch_size} does not divide into {micro_steps} micro steps x "
                f"{world_size} ranks; give a multiple of {micro_steps * world_size}"
            )
        if steps_per_epoch < 1 or steps_per_epoch * batch_size > len(source):
            raise DataError(
                f"{steps_per_epoch} steps of batch_size={batch_size} do not fit an epoch of "
                f"{len(source)} images; lower batch_size"
            )
        self.source, self.pipeline, self.sampler = source, pipeline, sampler
        self.seed, self.augment_epoch = seed, augment_epoch
        self.batch_size, self.micro_steps = batch_size, micro_steps
        self.rank, self.world_size = rank, world_size
        self.steps_per_epoch = steps_per_epoch

    def indices(self, step: int, micro_step: int) -> tuple[int, np.ndarray]:
        """The epoch, and the data set indices (int64) of this rank's share before replacement."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        share = self.batch_size // (self.micro_steps * self.world_size)
        place = micro_step * self.world_size + self.rank
        start = step_in_epoch * self.batch_size + place * share
        return epoch, self.sampler.indices(epoch, start, start + share)

    def __getitem__(self, item: tuple[int, int]) -> Batch:
        """The batch of (global step, micro step)."""
        epoch, wanted = self.indices(*item)
        augment_epoch = epoch if self.augment_epoch is None else self.augment_epoch
        batch = _Collation(self.source, self.pipeline, len(wanted))
        for row, index in enumerate(wanted.tolist()):
            used, image = self._readable(epoch, index, batch.broken)
            views = self.pipeline(image, SampleKey(self.seed, augment_epoch, used))
            batch.put(row, used, views)
        return batch.finish()

    def _readable(
        self, epoch: int, index: int, broken: list[tuple[str, str]]
    ) -> tuple[int, np.ndarray]:
        """The index and pixels of the image, or of the first replacement that can be decoded."""
        used = index
        for attempt in range(1, MAX_ATTEMPTS + 2):
            try:
                return used, self.source.image(used)
            except BrokenImage as error:
                broken.append((self.source.name(used), str(error)))
            used = mix(self.seed, epoch, index, attempt) % len(self.source)
        name, reason = broken[-1]
        raise DataError(
            f"{MAX_ATTEMPTS + 1} images in a row cannot be decoded, the last one {name}: {reason}; "
            "check that the files are images and can be read from this machine"
        )


class _EvalBatches(Dataset[Batch]):
    """Batches of the data set's own order, addressed by (first index, index behind the last)."""

    def __init__(self, source: Source, pipeline: Pipeline) -> None:
        self.source, self.pipeline = source, pipeline

    def __getitem__(self, item: tuple[int, int]) -> Batch:
        batch = _Collation(self.source, self.pipeline, item[1] - item[0])
        for row, index in enumerate(range(*item)):
            try:
                image = self.source.image(index)
            except BrokenImage as error:
                batch.broken.append((self.source.name(index), str(error)))
                batch.put(row, index, None)
            else:
                batch.put(row, index, self.pipeline(image, SampleKey(0, 0, index)))
        return batch.finish()


class _Collation:
    """A batch in the making: one array per view, filled row by row."""

    def __init__(self, source: Source, pipeline: Pipeline, rows: int) -> None:
        self.broken: list[tuple[str, str]] = []
        self._labels = source.labels
        self._indices = np.empty(rows, dtype=np.int64)
        sizes = [spec.size for spec in pipeline.views]
        self._views = [np.zeros((rows, 3, size, size), dtype=np.uint8) for size in sizes]

    def put(self, row: int, index: int, views: Sequence[np.ndarray] | None) -> None:
        """Set one row; None leaves its views black."""
        self._indices[row] = index
        if views is not None:
            for batch, view in zip(self._views, views, strict=True):
                batch[row] = view

    def finish(self) -> Batch:
        """The arrays as tensors that share their memory."""
        labels = None
        if self._labels is not None:
            labels = torch.from_numpy(self._labels[self._indices])
        views = [torch.from_numpy(view) for view in self._views]
        return Batch(views, torch.from_numpy(self._indices), labels, tuple(self.broken))


def batches(
    dataset: StepBatches, steps: range, *, workers: int, prefetch: int, pin_memory: bool
) -> Iterator[Batch]:
    """The batches of these global steps, micro step by micro step, from one set of workers.

    workers: processes per rank, 0 loads in this one; prefetch: batches that each worker keeps
    ready; pin_memory: page-locked memory, for asynchronous copies to the device. None of the three
    changes a batch. A DataError in a worker is raised here as it is.
    """
    items = ((step, micro) for step in steps for micro in range(dataset.micro_steps))
    return _stream(dataset, items, workers, prefetch, pin_memory)


def eval_batches(
    source: Source,
    pipeline: Pipeline,
    *,
    batch_size: int,
    rank: int,
    world_size: int,
    workers: int,
) -> Iterator[Batch]:
    """This rank's contiguous share of the data set, in order; the last batch may be smaller.

    batch_size: images per batch of this rank. The shares of all ranks, in rank order, are the data
    set, each image once; they differ in size by at most one. The views of a broken image are black,
    and Batch.broken names it.
    """
    first, end = (len(source) * place // world_size for place in (rank, rank + 1))
    starts = range(first, end, batch_size)
    items = ((start, min(start + batch_size, end)) for start in starts)
    return _stream(_EvalBatches(source, pipeline), items, workers, prefetch=2, pin_memory=False)


class _Carried(Dataset[Any]):
    """A data set of batches as what survives torch's loader: lists it can pin, errors as values.

    torch wraps an error that a worker raises into a page of traceback, and pins only tensors in
    containers that it knows, which Batch is not.
    """

    def __init__(self, dataset: Dataset[Batch]) -> None:
        self.dataset = dataset

    def __getitem__(self, item: tuple[int, int]) -> list[Any] | UserError:
        try:
            batch = self.dataset[item]
        except UserError as error:
            return error
        return [batch.views, batch.indices, batch.labels, batch.broken]


class _Items:
    """An iterable for torch's loader, which asks for it once."""

    def __init__(self, items: Iterator[tuple[int, int]]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return self._items


def _stream(
    dataset: Dataset[Batch],
    items: Iterator[tuple[int, int]],
    workers: int,
    prefetch: int,
    pin_memory: bool,
) -> Iterator[Batch]:
    loader: Iterable[Any] = DataLoader(
        _Carried(dataset),
        sampler=_Items(items),
        batch_size=None,
        collate_fn=_unchanged,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        # torch draws a number for its workers' seeds, which nothing here uses; without a generator
        # of its own it would take it from the global one, whose state a resumed run restores.
        generator=torch.Generator(),
    )
    for carried in loader:
        if isinstance(carried, UserError):
            raise carried
        views, indices, labels, broken = carried
        # Pinning turns tuples into lists.
        yield Batch(views, indices, labels, tuple((name, reason) for name, reason in broken))


def _unchanged(item: T) -> T:
    return item


def _start_worker(worker: int) -> None:
    """Leave stopping to the parent: signals of a terminal or a scheduler reach every process.

    The parent decides what an interrupt means (finish the step, write a checkpoint) and needs its
    workers until then, so they obey SIGTERM from nobody else. They end when it says so or vanishes,
    for which torch's worker loop watches.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_await_end, args=(os.getppid(),), daemon=True).start()


def _await_end(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
