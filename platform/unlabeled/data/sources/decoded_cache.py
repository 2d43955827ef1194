"""Decoded images kept in memory: for data sets that fit, every epoch but the first reads none."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any

import numpy as np

from unlabeled.data.decode import BrokenImage
from unlabeled.data.sources.base import Source

logger = logging.getLogger(__name__)


class DecodedCache(Source):
    """A source whose images are decoded once, as long as they fit into `limit_gb` (10^9 bytes).

    Images are those of the source bit for bit, and read-only. The first one that does not fit ends
    the filling, with one line in the log; those not kept are decoded each time. Of a broken image
    the reason is kept and raised again. Everything but the pixels is the source's own. Any number
    of threads may share a cache. Processes do not: each one that a loader forks goes on with what
    was cached before and fills its own copy up to the limit, so W workers take W times as much
    memory, and each decodes what it meets first.
    """

    def __init__(self, source: Source, limit_gb: float) -> None:
        self.labels, self.classes = source.labels, source.classes
        self.multi_labels = source.multi_labels
        self.decode_at_least = source.decode_at_least
        self._source, self._limit_gb = source, limit_gb
        self._images: dict[int, np.ndarray] = {}
        self._broken: dict[int, str] = {}
        self._bytes, self._full = 0, False
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        # To a process that is not forked goes the source alone: neither gigabytes nor the lock.
        return type(self), (self._source, self._limit_gb)

    def __len__(self) -> int:
        return len(self._source)

    def image(self, index: int) -> np.ndarray:
        kept = self._images.get(index)
        if kept is not None:
            return kept
        if index in self._broken:
            raise BrokenImage(self._broken[index])
        try:
            pixels = self._source.image(index)
        except BrokenImage as error:
            self._broken[index] = str(error)
            raise
        return pixels if self._full else self._keep(index, pixels)

    def name(self, index: int) -> str:
        return self._source.name(index)

    def replacement(self, index: int, draw: int) -> int:
        return self._source.replacement(index, draw)

    @property
    def num_classes(self) -> int:
        return self._source.num_classes

    def extent(self) -> str:
        return self._source.extent()

    def fingerprint(self) -> str:
        return self._source.fingerprint()

    def _keep(self, index: int, pixels: np.ndarray) -> np.ndarray:
        """The array to hand out: the cached one, if there is room or another thread was faster."""
        own: np.ndarray = pixels.copy()  # a view would keep alive whatever it is a view of
        own.flags.writeable = False
        size = sys.getsizeof(own)  # with its header, 4 % of an image of 32 x 32
        with self._lock:
            if index in self._images:
                return self._images[index]
            if self._bytes + size <= self._limit_gb * 1e9:
                self._images[index] = own
                self._bytes += size
            elif not self._full:
                self._full = True
                self._say_full(size)
        return own

    def _say_full(self, size: int) -> None:
        count, total = len(self._images), len(self)
        needed = (self._bytes + size) / (count + 1) * total / 1e9
        logger.warning(
            "the cache of decoded images is full: %d of %d kept in %.3g GB, the others are decoded "
            "each time; all of them would take about %.3g GB",
            *(count, total, self._bytes / 1e9, needed),
        )
