"""The contract of those who fill slots, and the simplest of them: nobody but the reader."""

from __future__ import annotations

import abc

from unlabeled.data.loader.rows import Broken, Item, RowBatches
from unlabeled.data.loader.slots import BatchArrays, BatchSlot


class Crew(abc.ABC):
    """Fills the slots of a ring. Slots are finished in the order in which they were begun."""

    @abc.abstractmethod
    def begin(self, slot: BatchSlot, item: Item) -> None:
        """Have a slot filled with the batch of this item; returns before that is done."""

    @abc.abstractmethod
    def finish(self, slot: BatchSlot) -> tuple[BatchArrays, Broken]:
        """Wait until a slot is filled: its arrays, and what was broken, in the order of the rows.

        Raises what the first of the rows that failed raised.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Stop filling, whatever was begun; nobody writes to the slots any more."""


class Alone(Crew):
    """Fills a slot when it is due."""

    def __init__(self, dataset: RowBatches) -> None:
        self._dataset = dataset
        self._items: dict[int, Item] = {}

    def begin(self, slot: BatchSlot, item: Item) -> None:
        self._items[slot.number] = item

    def finish(self, slot: BatchSlot) -> tuple[BatchArrays, Broken]:
        item = self._items.pop(slot.number)
        arrays = begun(self._dataset, slot, item)
        rows = range(len(arrays.indices))
        return arrays, tuple(b for row in rows for b in self._dataset.fill(item, arrays, row))

    def close(self) -> None:
        self._items.clear()


def begun(dataset: RowBatches, slot: BatchSlot, item: Item) -> BatchArrays:
    """A slot's arrays for a batch, which say which images are wanted."""
    wanted = dataset.wanted(item)
    arrays = slot.arrays(len(wanted))
    arrays.indices[...] = wanted
    return arrays


class Filling:
    """How far a batch is: rows that are missing, and what was found broken or failed so far."""

    def __init__(self, arrays: BatchArrays) -> None:
        self.arrays = arrays
        self.missing = len(arrays.indices)
        self.broken: dict[int, Broken] = {}
        self.errors: dict[int, BaseException] = {}

    def result(self) -> tuple[BatchArrays, Broken]:
        """What `Crew.finish` gives, once no row is missing."""
        if self.errors:
            raise self.errors[min(self.errors)]
        return self.arrays, tuple(b for row in sorted(self.broken) for b in self.broken[row])
