"""The contract of a sample order."""

from __future__ import annotations

import abc

import numpy as np


class Sampler(abc.ABC):
    """A sample order, constructed by `__init__(self, config, *, num_samples: int, seed: int)`."""

    @abc.abstractmethod
    def indices(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Sample indices (int64) at positions `start..stop-1` of an epoch, in O(stop - start)."""

    def repeat(self, epoch: int, position: int) -> int:
        """How many times the sample at this position came before it in the epoch."""
        return 0
