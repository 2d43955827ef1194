"""The contract of batches that are made row by row, in any order and by anybody."""

from __future__ import annotations

import abc

import numpy as np
import torch

from unlabeled.data.loader.slots import BatchArrays
from unlabeled.data.sources.base import Source
from unlabeled.data.transforms.base import Pipeline
from unlabeled.data.types import Batch

Item = tuple[int, int]
"""What a batch is asked for by."""

Broken = tuple[tuple[str, str], ...]
"""(name, reason) of images that could not be decoded."""


class RowBatches(abc.ABC):
    """Batches of views of a source's images, addressed by items; `rows`: the most a batch has."""

    def __init__(self, source: Source, pipeline: Pipeline, rows: int) -> None:
        self.source, self.pipeline, self.rows = source, pipeline, rows

    @abc.abstractmethod
    def wanted(self, item: Item) -> np.ndarray:
        """The data set indices (int64) of a batch's rows, before any replacement."""

    @abc.abstractmethod
    def fill(self, item: Item, arrays: BatchArrays, row: int) -> Broken:
        """Write one row; pure in (item, row), and safe in several threads at once.

        `arrays.indices[row]` says which image is wanted, and afterwards which one was taken.
        Returns what was found broken on the way.
        """

    def finished(self, arrays: BatchArrays, broken: Broken, device: torch.device) -> Batch:
        """The batch whose rows have all been filled, with its labels, on a device."""
        labels = self.source.labels
        if labels is not None:
            arrays.labels[...] = labels[arrays.indices]
        return arrays.batch(broken, device, labelled=labels is not None)

    def __getitem__(self, item: Item) -> Batch:
        """One batch in memory of its own, on the CPU."""
        wanted = self.wanted(item)
        rows = len(wanted)
        memory = np.zeros(BatchArrays.num_bytes(self.pipeline, rows), dtype=np.uint8)
        arrays = BatchArrays(self.pipeline, rows, memory)
        arrays.indices[...] = wanted
        broken = tuple(found for row in range(rows) for found in self.fill(item, arrays, row))
        return self.finished(arrays, broken, torch.device("cpu"))
