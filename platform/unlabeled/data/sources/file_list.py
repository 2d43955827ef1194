"""Images named by a list: one path a line."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unlabeled.data.decode import decode_file
from unlabeled.data.npy_files import map_array
from unlabeled.data.sources.base import Source, Split
from unlabeled.data.sources.labels import class_names, class_numbers
from unlabeled.data.sources.paths import PathList
from unlabeled.errors import DataError
from unlabeled.registry import register


@register("dataset", "file_list")
class FileList(Source):
    """The images that a text file (one path a line) or a .npy array of strings names, in its order.

    Relative paths start at `root`, or where the list lies. Labels are a file of equal length, text
    or .npy, of whole numbers or of names; classes are those of both splits together, numbers sorted
    by value. Files are not looked at before they are used.
    DataError: a list is missing, empty or unreadable, or labels and paths differ in number.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        train: str
        """List of the training images: .txt or .npy."""
        test: str | None = None
        """List of the test images."""
        train_labels: str | None = None
        """Labels of the training images: .txt (one a line) or .npy, in the order of the list."""
        test_labels: str | None = None
        """Labels of the test images."""
        root: str | None = None
        """Folder that relative paths start at; null: the folder that the list lies in."""

    def __init__(self, config: Config, *, split: Split) -> None:
        listing, labels = config.train, config.train_labels
        if split == "test":
            if config.test is None:
                raise DataError("there is no test split: give a list of test images as test")
            listing, labels = config.test, config.test_labels
        start = Path(listing).parent if config.root is None else Path(config.root)
        self.root = str(start.expanduser())
        self._paths = PathList(read_lines(listing))
        if not len(self._paths):
            raise DataError(f"{listing} names no images")
        if labels is not None:
            self._label(listing, labels, config)

    def _label(self, listing: str, labels: str, config: Config) -> None:
        own = read_lines(labels)
        if len(own) != len(self):
            raise DataError(f"{labels} has {len(own)} labels, {listing} has {len(self)} paths")
        both = {file for file in (config.train_labels, config.test_labels) if file is not None}
        self.classes = class_names(own, *(read_lines(file) for file in both - {labels}))
        self.labels = class_numbers(own, self.classes)

    def __len__(self) -> int:
        return len(self._paths)

    def image(self, index: int) -> np.ndarray:
        path = os.path.join(self.root, self._paths[index])
        return decode_file(path, at_least=self.decode_at_least)

    def name(self, index: int) -> str:
        """The path as the list has it."""
        return self._paths[index]


def read_lines(file: str) -> list[str]:
    """The entries of a text file (empty lines left out) or of a one-dimensional .npy array."""
    path = Path(file).expanduser()
    try:
        if path.suffix == ".npy":
            return _array(file, map_array(path))
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except (OSError, ValueError) as error:  # a path may not hold a null byte
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {file}: {reason}") from error
    return [line.strip("\r") for line in text.split("\n") if line.strip()]


def _array(file: str, array: np.ndarray) -> list[str]:
    if array.ndim != 1 or array.dtype.kind not in "USiu":
        raise DataError(
            f"{file}: expected a one-dimensional array of strings or integers, "
            f"got shape {array.shape} of {array.dtype}"
        )
    if array.dtype.kind == "S":
        return [os.fsdecode(item) for item in array.tolist()]
    return [str(item) for item in array.tolist()]
