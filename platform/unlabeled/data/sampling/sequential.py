"""The order of the data set itself, the same in every epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from unlabeled.data.sampling.base import Sampler
from unlabeled.registry import register


@register("sampler", "sequential")
class Sequential(Sampler):
    """Sample i at position i of every epoch.

    indices(epoch, start, stop) = start, ..., stop - 1 (int64). For streams that are already in
    random order, and for debugging. IndexError for positions outside range(num_samples).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    forward: ClassVar[bool] = True

    def __init__(self, config: Config, *, num_samples: int, seed: int) -> None:
        self.num_samples = num_samples

    def indices(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Sample indices at the positions `start..stop-1`."""
        if start < stop and not 0 <= start < stop <= self.num_samples:
            raise IndexError(f"positions must lie in range({self.num_samples})")
        return np.arange(start, stop, dtype=np.int64)
