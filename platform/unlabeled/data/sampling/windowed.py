"""The order of the data set, shuffled within windows: for streams and for one pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from unlabeled.config.ranges import at_least
from unlabeled.data.sampling.base import Sampler
from unlabeled.data.sampling.permutation import Permutation
from unlabeled.registry import register

# Key of the windows' permutations, so that they are unrelated to those of blocks.
_WINDOW = 1


@register("sampler", "windowed")
class Windowed(Sampler):
    """Every `window_samples` neighbours of the data set in random order, window after window.

    Position p holds a sample of window p // window_samples, so less than window_samples away from
    p: a data set that nobody counted (dataset=shards) is read from its beginning on, and of a
    remote one few shards are needed at a time. indices(epoch, start, stop) -> int64 [stop - start]
    is a pure function of (seed, epoch, position) in O(stop - start) time and no memory. The order
    does not depend on the world size; ranks take their shares of it. IndexError for positions
    outside range(num_samples).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        window_samples: int = 65536
        """Neighbours in the data set that are shuffled among themselves; the last window may be
        shorter."""

        def problems(self) -> Iterator[tuple[str, str]]:
            yield from at_least(self, 1, "window_samples")

    forward: ClassVar[bool] = True

    def __init__(self, config: Config, *, num_samples: int, seed: int) -> None:
        self._windows = Windows(config.window_samples, num_samples, seed)

    def indices(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Sample indices at the positions `start..stop-1` of an epoch."""
        return self._windows(epoch, start, stop)


@dataclass(frozen=True)
class Windows:
    """range(num_samples) cut into windows, each of which is shuffled anew every epoch."""

    window: int
    num_samples: int
    seed: int

    def __call__(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """What stands at `start..stop-1` (int64); IndexError outside range(num_samples)."""
        if start < stop and not 0 <= start < stop <= self.num_samples:
            raise IndexError(f"positions must lie in range({self.num_samples})")
        numbers = range(start // self.window, -(-stop // self.window)) if start < stop else ()
        shuffled = [self._in_window(epoch, number, start, stop) for number in numbers]
        return np.concatenate(shuffled) if shuffled else np.zeros(0, dtype=np.int64)

    def _in_window(self, epoch: int, number: int, start: int, stop: int) -> np.ndarray:
        """What stands between start and stop in one window."""
        first = number * self.window
        size = min(self.window, self.num_samples - first)
        order = Permutation(size, self.seed, epoch, _WINDOW, number)
        return first + order(np.arange(max(start - first, 0), min(stop - first, size)))
