"""Batches handed out in order, from whoever is chosen to make them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from itertools import islice

import torch

from unlabeled import activity
from unlabeled.config.schema import LoaderConfig
from unlabeled.data.loader.crew import Alone, Crew
from unlabeled.data.loader.in_order import InOrder
from unlabeled.data.loader.processes import Processes
from unlabeled.data.loader.rows import Item, RowBatches
from unlabeled.data.loader.slots import BatchSlot, Ring
from unlabeled.data.loader.step_batches import StepBatches
from unlabeled.data.loader.threads import Threads
from unlabeled.data.sources.base import Source
from unlabeled.data.transforms.base import Pipeline
from unlabeled.data.types import Batch


def batches(
    dataset: StepBatches, steps: range, *, loader: LoaderConfig, device: torch.device
) -> Generator[Batch, None, None]:
    """The batches of these global steps on a device, micro step by micro step.

    Deferred tables, and on the CPU a batch's views, are lent: they are valid until the next batch
    is asked for, which reuses their memory. On a GPU the other tensors are the batch's own; their
    copies are asked for on the current stream, one per size of views. Nothing in `loader` changes a
    batch. Errors are raised when their batch is due. Closing the iterator ends threads and
    processes.
    """
    items = ((step, micro) for step in steps for micro in range(dataset.micro_steps))
    return _stream(dataset, items, loader, device)


def eval_batches(
    source: Source,
    pipeline: Pipeline,
    *,
    batch_size: int,
    rank: int,
    world_size: int,
    loader: LoaderConfig,
    device: torch.device,
) -> Generator[Batch, None, None]:
    """This rank's contiguous share of the data set, in order; the last batch may be smaller.

    batch_size: images per batch of this rank. The shares of all ranks, in rank order, are the data
    set, each image once; they differ in size by at most one. The views of a broken image are black,
    and Batch.broken names it. Batches are lent as `batches` says.
    """
    first, end = (len(source) * place // world_size for place in (rank, rank + 1))
    share = [range(first, end)]
    return range_batches(
        source, pipeline, share, batch_size=batch_size, loader=loader, device=device
    )


def range_batches(
    source: Source,
    pipeline: Pipeline,
    ranges: Sequence[range],
    *,
    batch_size: int,
    loader: LoaderConfig,
    device: torch.device,
) -> Generator[Batch, None, None]:
    """These ranges of a data set, one after the other; no batch holds images of two of them.

    How a range is cut into batches depends on nothing but its length and batch_size. Everything
    else is as `eval_batches` says.
    """
    rows = max(1, min(batch_size, max(map(len, ranges), default=0)))
    items = ((start, min(start + rows, each.stop)) for each in ranges for start in each[::rows])
    return _stream(InOrder(source, pipeline, rows), items, loader, device)


def worker_count(loader: LoaderConfig, device: torch.device) -> int:
    """Threads or processes per rank.

    Where `workers` is null: as many as torch may use in this rank, which are the cores it may run
    on over the ranks of the machine; half of them where training itself runs on these cores.
    """
    if loader.workers is not None:
        return loader.workers
    threads = torch.get_num_threads()
    return max(1, threads // 2) if device.type == "cpu" else threads


def _crew(dataset: RowBatches, ring: Ring, loader: LoaderConfig, workers: int) -> Crew:
    if workers == 0:
        return Alone(dataset)
    threads = dataset.pipeline.releases_gil if loader.kind == "auto" else loader.kind == "threads"
    return Threads(dataset, workers) if threads else Processes(dataset, ring.slots, workers)


def _stream(
    dataset: RowBatches, items: Iterator[Item], loader: LoaderConfig, device: torch.device
) -> Generator[Batch, None, None]:
    dataset.pipeline.prepare()
    workers = worker_count(loader, device)
    # One slot is in the reader's hands, the others are being filled ahead of it.
    slots = 1 + (loader.prefetch_batches if workers else 0)
    ring = Ring(dataset.pipeline, rows=dataset.rows, slots=slots)
    crew = _crew(dataset, ring, loader, workers)
    try:
        if device.type == "cuda":
            ring.pin()
        yield from _in_turn(dataset, items, ring, crew, device)
    finally:
        crew.close()
        ring.close()


def _in_turn(
    dataset: RowBatches, items: Iterator[Item], ring: Ring, crew: Crew, device: torch.device
) -> Generator[Batch, None, None]:
    free, filling = deque(ring.slots), deque[BatchSlot]()
    while True:
        for item in islice(items, len(free)):
            slot = free.popleft()
            slot.await_copies()
            crew.begin(slot, item)
            filling.append(slot)
        if not filling:
            return
        slot = filling.popleft()
        batch = dataset.finished(*crew.finish(slot), device)
        if device.type == "cuda":
            slot.note_copies()
        activity.note()
        yield batch
        free.append(slot)
