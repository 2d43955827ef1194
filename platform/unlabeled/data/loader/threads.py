"""Slots filled by threads of this process: no copy, no message, as long as nobody holds the GIL."""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading

from unlabeled.data.loader.crew import Crew, Filling, begun
from unlabeled.data.loader.rows import Broken, Item, RowBatches
from unlabeled.data.loader.slots import BatchArrays, BatchSlot


class Threads(Crew):
    """Threads that take one row after the other, in the order of the batches.

    They are daemons that an exit hook ends and joins: the interpreter neither waits for threads
    that wait for work, nor leaves while one still decodes.
    """

    def __init__(self, dataset: RowBatches, count: int) -> None:
        self._dataset = dataset
        self._rows: queue.SimpleQueue[tuple[_SharedFilling, int] | None] = queue.SimpleQueue()
        self._begun: dict[int, _SharedFilling] = {}
        self._threads = [
            threading.Thread(target=self._work, name=f"unlabeled-loader-{number}", daemon=True)
            for number in range(count)
        ]
        atexit.register(self.close)
        for thread in self._threads:
            thread.start()

    def begin(self, slot: BatchSlot, item: Item) -> None:
        filling = _SharedFilling(item, begun(self._dataset, slot, item))
        self._begun[slot.number] = filling
        for row in range(filling.missing):
            self._rows.put((filling, row))

    def finish(self, slot: BatchSlot) -> tuple[BatchArrays, Broken]:
        filling = self._begun.pop(slot.number)
        filling.done.wait()
        return filling.result()

    def close(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._rows.get_nowait()
        for _ in self._threads:
            self._rows.put(None)
        for thread in self._threads:
            # The garbage collector may close a forgotten stream in any thread, even one of these.
            if thread is not threading.current_thread():
                thread.join()
        atexit.unregister(self.close)

    def _work(self) -> None:
        while (job := self._rows.get()) is not None:
            filling, row = job
            try:
                broken = self._dataset.fill(filling.item, filling.arrays, row)
            except BaseException as error:  # noqa: BLE001 - raised where the batch is due
                filling.errors[row] = error
            else:
                if broken:
                    filling.broken[row] = broken
            filling.row_done()


class _SharedFilling(Filling):
    def __init__(self, item: Item, arrays: BatchArrays) -> None:
        super().__init__(arrays)
        self.item, self.done = item, threading.Event()
        self._lock = threading.Lock()

    def row_done(self) -> None:
        with self._lock:
            self.missing -= 1
            if self.missing == 0:
                self.done.set()
