"""The memory that batches are written to: a fixed ring of slots, reused for a whole stream."""

from __future__ import annotations

import math
import mmap
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unlabeled.data.transforms.base import Pipeline
from unlabeled.data.types import Batch
from unlabeled.errors import EnvironmentProblem

Shape = tuple[int, ...]

# A cache line, so that two arrays never share one.
ALIGNMENT = 64
# cudaHostRegisterPortable: page-locked for every device of the process.
PORTABLE = 1


class BatchArrays:
    """A batch of `rows` rows as arrays in a piece of memory (uint8, 1-D).

    stacks: crops of equal size in one piece, uint8 [V_size, rows, 3, size, size] each; views: the V
    parts of the stacks; deferred: float64 [V, rows, T, 2]; indices and labels: int64 [rows].
    """

    def __init__(self, pipeline: Pipeline, rows: int, memory: np.ndarray) -> None:
        found, start = [], 0
        for shape, dtype in _layout(pipeline, rows):
            size = math.prod(shape) * dtype.itemsize
            found.append(memory[start : start + size].view(dtype).reshape(shape))
            start += _aligned(size)
        self.indices, self.labels, self.deferred, *self.stacks = found
        self.views = [view for stack in self.stacks for view in stack]

    @staticmethod
    def num_bytes(pipeline: Pipeline, rows: int) -> int:
        """How much memory a batch takes."""
        layout = _layout(pipeline, rows)
        return sum(_aligned(math.prod(shape) * dtype.itemsize) for shape, dtype in layout)

    def row(self, row: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The views of one row, and its tables of deferred steps where there are any."""
        tables = [table[row] for table in self.deferred] if self.deferred.size else []
        return [view[row] for view in self.views], tables

    def batch(
        self,
        broken: tuple[tuple[str, str], ...],
        device: torch.device,
        *,
        labelled: bool,
    ) -> Batch:
        """The batch on a device; tables, and views on the CPU, share this memory."""
        stacks = [_moved(stack, device) for stack in self.stacks]
        # The device's half of a pipeline reads its tables on the host.
        deferred = torch.from_numpy(self.deferred) if self.deferred.size else ()
        return Batch(
            views=[view for stack in stacks for view in stack],
            indices=_own(self.indices, device),
            labels=_own(self.labels, device) if labelled else None,
            broken=broken,
            deferred=tuple(deferred),
        )


def _layout(pipeline: Pipeline, rows: int) -> list[tuple[Shape, np.dtype[np.generic]]]:
    number, byte = np.dtype(np.int64), np.dtype(np.uint8)
    tables = (len(pipeline.views), rows, pipeline.deferred_steps, 2)
    stacks = [
        (len(list(views)), rows, 3, size, size)
        for size, views in groupby(pipeline.views, key=lambda spec: spec.size)
    ]
    return [
        ((rows,), number),
        ((rows,), number),
        (tables, np.dtype(np.float64)),
        *((stack, byte) for stack in stacks),
    ]


def _aligned(size: int, alignment: int = ALIGNMENT) -> int:
    return -(-size // alignment) * alignment


def _moved(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device, non_blocking=True)


def _own(array: np.ndarray, device: torch.device) -> Tensor:
    """Small enough to copy, so that whoever keeps it need not know of slots."""
    return torch.from_numpy(array).to(device, non_blocking=True, copy=True)


class BatchSlot:
    """Memory for one batch of at most `rows` rows."""

    def __init__(self, number: int, pipeline: Pipeline, memory: np.ndarray) -> None:
        self.number, self._pipeline, self._memory = number, pipeline, memory
        self._copied: torch.cuda.Event | None = None

    def arrays(self, rows: int) -> BatchArrays:
        """This memory as a batch of so many rows; no pixel is touched."""
        return BatchArrays(self._pipeline, rows, self._memory)

    def note_copies(self) -> None:
        """The copies to the GPU that were just asked for read this slot until they are done."""
        if self._copied is None:
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._copied.record()

    def await_copies(self) -> None:
        """Return when nothing reads the slot any more."""
        if self._copied is not None:
            self._copied.synchronize()


class Ring:
    """Slots in one piece of memory that is made once and shared with processes forked later.

    The memory is an anonymous mapping: no file in /dev/shm, whose size containers limit, and
    nothing to tidy up after a kill. Pages that are never written are never taken.
    """

    def __init__(self, pipeline: Pipeline, *, rows: int, slots: int) -> None:
        size = _aligned(BatchArrays.num_bytes(pipeline, rows), mmap.PAGESIZE)
        self._memory = np.frombuffer(mmap.mmap(-1, size * slots), dtype=np.uint8)
        self.slots = [
            BatchSlot(number, pipeline, self._memory[number * size : (number + 1) * size])
            for number in range(slots)
        ]
        self._pinned = False

    def pin(self) -> None:
        """Page-lock the memory, so that copies to the GPU are asynchronous."""
        address, size = self._memory.ctypes.data, self._memory.nbytes
        status = int(_cuda().cudaHostRegister(address, size, PORTABLE))
        if status != 0:
            raise EnvironmentProblem(
                f"loader.prefetch_batches: {size / 1e9:.2f} GB of batches cannot be page-locked "
                f"(CUDA error {status}); ask for fewer"
            )
        self._pinned = True

    def close(self) -> None:
        """Wait for copies that still read the memory, and release the page lock."""
        for slot in self.slots:
            slot.await_copies()
        if self._pinned:
            _cuda().cudaHostUnregister(self._memory.ctypes.data)
            self._pinned = False


def _cuda() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]
