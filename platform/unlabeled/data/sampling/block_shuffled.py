"""A random order that reads shards piece by piece: whole blocks shuffled, then a bounded window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from unlabeled.config.ranges import at_least
from unlabeled.data.sampling.base import Sampler
from unlabeled.data.sampling.permutation import Permutation
from unlabeled.data.sampling.windowed import Windows
from unlabeled.registry import register

# Key of the blocks' permutation, so that it is unrelated to those of windows.
_BLOCKS = 0


@register("sampler", "block_shuffled")
class BlockShuffled(Sampler):
    """Every sample once an epoch, and at any time from few places of the disk.

    The data set is cut into blocks of `block_samples` neighbours (the last one may be shorter),
    which are taken in a new random order every epoch; of that sequence, every `window_samples`
    positions are shuffled among themselves. So the samples of a window lie in at most
    window_samples / block_samples + 2 blocks. indices(epoch, start, stop) -> int64 [stop - start]
    is a pure function of (seed, epoch, position) in O(stop - start) time and no memory. The order
    does not depend on the world size; ranks take their shares of it. IndexError for positions
    outside range(num_samples).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        block_samples: int = 1024
        """Neighbours in the data set that stay together: as many as a shard has, where shards are
        fetched from far away, so that each is fetched once or twice an epoch."""
        window_samples: int = 65536
        """Consecutive positions that are shuffled among themselves."""

        def problems(self) -> Iterator[tuple[str, str]]:
            yield from at_least(self, 1, "block_samples", "window_samples")

    def __init__(self, config: Config, *, num_samples: int, seed: int) -> None:
        self.num_samples, self.seed, self._block = num_samples, seed, config.block_samples
        self._windows = Windows(config.window_samples, num_samples, seed)

    def indices(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Sample indices at the positions `start..stop-1` of an epoch."""
        return self._in_blocks(epoch, self._windows(epoch, start, stop))

    def _in_blocks(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """The samples at these positions of the sequence of shuffled blocks."""
        blocks = -(-self.num_samples // self._block)
        order = Permutation(blocks, self.seed, epoch, _BLOCKS)
        # The last block may be short; behind it, everything stands that much earlier.
        missing = blocks * self._block - self.num_samples
        short_end = (int(order.inverse(np.array([blocks - 1]))[0]) + 1) * self._block - missing
        spread = positions + np.where(positions >= short_end, missing, 0)
        samples: np.ndarray = order(spread // self._block) * self._block + spread % self._block
        return samples
