"""A part of a data set."""

from __future__ import annotations

import numpy as np

from unlabeled.data.sources.base import Source


class Subset(Source):
    """The samples of a source at these places (int64 [n]), with its classes and names."""

    def __init__(self, source: Source, indices: np.ndarray) -> None:
        self._source, self._indices = source, indices
        self.labels = None if source.labels is None else source.labels[indices]
        self.multi_labels = None if source.multi_labels is None else source.multi_labels[indices]
        self.classes = source.classes

    def __len__(self) -> int:
        return len(self._indices)

    def image(self, index: int) -> np.ndarray:
        """The source's image."""
        return self._source.image(int(self._indices[index]))

    def name(self, index: int) -> str:
        """The source's name."""
        return self._source.name(int(self._indices[index]))


def evenly_spaced(source: Source, size: int) -> Subset:
    """At most `size` samples of a source, evenly spaced."""
    places = np.linspace(0, len(source) - 1, num=min(size, len(source))).round()
    return Subset(source, np.unique(places.astype(np.int64)))
