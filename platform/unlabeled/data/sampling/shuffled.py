"""The training order: a new permutation every epoch, in O(1) memory for any number of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unlabeled.data.sampling.base import Sampler
from unlabeled.data.sampling.permutation import Permutation
from unlabeled.registry import register


@register("sampler", "shuffled")
class Shuffled(Sampler):
    """Every sample once an epoch, in an order that is a pure function of (seed, epoch, position).

    indices(epoch, start, stop) -> int64 [stop - start], computed by a keyed Feistel network: no
    list of N numbers exists, so N = 10^9 starts at once. The order does not depend on the world
    size; ranks take their shares of it. IndexError for positions outside range(num_samples).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def __init__(self, config: Config, *, num_samples: int, seed: int) -> None:
        self.num_samples = num_samples
        self.seed = seed

    def indices(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Sample indices at the positions `start..stop-1` of an epoch."""
        return self._order(epoch)(np.arange(start, stop, dtype=np.int64))

    def positions(self, epoch: int, indices: np.ndarray) -> np.ndarray:
        """Where in the order of an epoch these samples stand: the inverse of `indices`."""
        return self._order(epoch).inverse(indices)

    def _order(self, epoch: int) -> Permutation:
        return Permutation(self.num_samples, self.seed, epoch)
