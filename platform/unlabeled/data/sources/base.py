"""The contract of a data set."""

from __future__ import annotations

import abc
import hashlib
from typing import Literal

import numpy as np

Split = Literal["train", "test"]


class Source(abc.ABC):
    """An indexed set of images; the constructor is `__init__(self, config, *, split: Split)`.

    `image(i)` returns RGB uint8 [h, w, 3] and raises `unlabeled.data.decode.BrokenImage` for a file
    that cannot be decoded. Labels are int64 in range(num_classes), or None where there are none.
    Where an image may show several classes, `labels` is None and `multi_labels` is int8 [N, C]: 1
    the class is there, -1 it is not, 0 undecided (VOC's "difficult").
    A missing root, an empty folder or a split that does not exist raises DataError in the
    constructor. `decode_at_least`: sources of files decode large JPEGs at 1/2, 1/4 or 1/8 of their
    size where the shorter side stays at least so long; None, unless training asks: every pixel.
    A source that is not `counted` is a stream without end: it is read from its beginning on by any
    index, and its length is the one stated by whoever reads it; DataError where none is.
    """

    counted: bool = True
    stated_samples: int | None = None
    decode_at_least: int | None = None
    labels: np.ndarray | None = None
    multi_labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def image(self, index: int) -> np.ndarray:
        """The decoded image: RGB uint8 [h, w, 3]."""

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """What a person would call the sample: its path, or its place in the set."""

    def replacement(self, index: int, draw: int) -> int:
        """The image that stands in for a broken one, by a random number of any size."""
        return draw % len(self)

    @property
    def num_classes(self) -> int:
        """How many classes the labels distinguish (0 without labels)."""
        return 0 if self.labels is None else len(self.classes)

    def extent(self) -> str:
        """How much there is, in words."""
        return f"{len(self)} images"

    def fingerprint(self) -> str:
        """A short hash of names and labels: results on equal fingerprints are comparable."""
        digest = hashlib.sha256(str(len(self)).encode())
        for index in np.linspace(0, len(self) - 1, num=min(len(self), 1000), dtype=np.int64):
            digest.update(self.name(int(index)).encode("utf-8", "surrogateescape"))
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels, dtype=np.int64).tobytes())
        if self.multi_labels is not None:
            digest.update(np.ascontiguousarray(self.multi_labels, dtype=np.int8).tobytes())
        return digest.hexdigest()[:16]
