"""Small data sets that are one uint8 array in memory."""

from __future__ import annotations

import numpy as np

from unlabeled.data.sources.base import Source


class ArraySource(Source):
    """Images [N, h, w, 3] and labels [N] in memory; `prefix` begins the samples' names."""

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], prefix: str
    ) -> None:
        self.images = images  # uint8 [N, h, w, 3]
        self.labels = labels.astype(np.int64)  # [N]
        self.classes = classes
        self.prefix = prefix

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> np.ndarray:
        pixels: np.ndarray = self.images[index]
        return pixels

    def name(self, index: int) -> str:
        """The prefix, the class and the place in the set."""
        assert self.labels is not None
        return f"{self.prefix}/{self.classes[self.labels[index]]}/{index}"
