"""An order that somebody has made: for methods that choose the samples of an epoch themselves."""

from __future__ import annotations

import numpy as np

from unlabeled.data.sampling.base import Sampler


class Listed(Sampler):
    """The samples `order` [positions] (int64), in every epoch; one may come several times.

    IndexError for positions outside range(len(order)). Memory: 16 bytes a position.
    """

    def __init__(self, order: np.ndarray) -> None:
        self._order = np.asarray(order, dtype=np.int64)
        self._earlier = _earlier(self._order)

    def indices(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """The samples at the positions `start..stop-1`."""
        if start < stop and not 0 <= start < stop <= len(self._order):
            raise IndexError(f"positions must lie in range({len(self._order)})")
        return self._order[start:stop]

    def repeat(self, epoch: int, position: int) -> int:
        """How many times the sample at this position came before it."""
        return int(self._earlier[position])


def _earlier(order: np.ndarray) -> np.ndarray:
    """How often the element at each position stands at earlier ones."""
    by_sample = np.argsort(order, kind="stable")
    ordered = order[by_sample]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(order)])
    lengths = np.diff(np.r_[first, len(order)])
    earlier = np.empty(len(order), dtype=np.int64)
    earlier[by_sample] = np.arange(len(order)) - np.repeat(first, lengths)
    return earlier
