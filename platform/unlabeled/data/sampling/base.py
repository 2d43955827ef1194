"""The contract of a sample order."""

from __future__ import annotations

import abc
from typing import ClassVar

import numpy as np


class Sampler(abc.ABC):
    """A sample order, constructed by `__init__(self, config, *, num_samples: int, seed: int)`."""

    forward: ClassVar[bool] = False
    """Whether samples come nearly in the order of the data set: the one at position p is below p +
    a bound, so that a data set which nobody counted can be read."""

    @abc.abstractmethod
    def indices(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Sample indices (int64) at positions `start..stop-1` of an epoch, in O(stop - start)."""

    def repeat(self, epoch: int, position: int) -> int:
        """How many times the sample at this position came before it in the epoch."""
        return 0
