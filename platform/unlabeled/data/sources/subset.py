"""An evenly spaced part of a data set."""

from __future__ import annotations

import numpy as np

from unlabeled.data.sources.base import Source


class Subset(Source):
    """At most `size` samples of a source, evenly spaced, with its classes and names."""

    def __init__(self, source: Source, size: int) -> None:
        self._source = source
        self._indices = np.unique(
            np.linspace(0, len(source) - 1, num=min(size, len(source))).round().astype(np.int64)
        )
        self.labels = None if source.labels is None else source.labels[self._indices]
        self.classes = source.classes

    def __len__(self) -> int:
        return len(self._indices)

    def image(self, index: int) -> np.ndarray:
        """The source's image."""
        return self._source.image(int(self._indices[index]))

    def name(self, index: int) -> str:
        """The source's name."""
        return self._source.name(int(self._indices[index]))
