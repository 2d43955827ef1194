"""The pictures of detection splits as a data set: what they are called, and a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from unlabeled.data.decode import decode_file
from unlabeled.data.sources.base import Source
from unlabeled.transfer.detection_data import DetectionSplit


class DetectionImages(Source):
    """The images of one or more splits, one after the other, without labels.

    DataError names what is absent. The fingerprint is of names and annotations.
    """

    def __init__(self, splits: Sequence[DetectionSplit]) -> None:
        self.splits = list(splits)
        for split in self.splits:
            split.check()
        self._paths = [(split.root, path) for split in self.splits for path in split.images()]

    def __len__(self) -> int:
        return len(self._paths)

    def image(self, index: int) -> np.ndarray:
        return decode_file(str(self._paths[index][1]), at_least=self.decode_at_least)

    def name(self, index: int) -> str:
        """The path below the root."""
        root, path = self._paths[index]
        return path.relative_to(root).as_posix()

    def fingerprint(self) -> str:
        """A short hash of the images' names and all annotations."""
        prints = " ".join(split.fingerprint() for split in self.splits)
        return hashlib.sha256(prints.encode()).hexdigest()[:16]
