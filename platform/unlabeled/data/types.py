"""What travels from the data room to the methods."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what describes views does without torch, which takes seconds to import
    from torch import Tensor


@dataclass(frozen=True)
class ViewSpec:
    """One view of a pipeline: square crops of `size` pixels; `role` is 'global' or 'local'."""

    size: int
    role: str


@dataclass(frozen=True)
class Batch:
    """A rank's share of a batch of views.

    views: V tensors [B, 3, h, w], crops of equal size adjacent, uint8 from the loader and
    normalised float32 once on the device; indices: [B] positions in the data set; labels: [B] or
    None; broken: (name, reason) of images that could not be decoded and were replaced; deferred:
    for each view the steps left for the device, on the host, [B, T, 2] float64 of (step code,
    number), or nothing. The loader lends uint8 views on the CPU and tables until it is asked for
    the next batch.
    """

    views: list[Tensor]
    indices: Tensor
    labels: Tensor | None
    broken: tuple[tuple[str, str], ...] = ()
    deferred: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    def without_labels(self) -> Batch:
        """The same batch as a self-supervised method is allowed to see it."""
        return replace(self, labels=None)
