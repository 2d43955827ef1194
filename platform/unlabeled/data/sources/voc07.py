"""PASCAL VOC: photographs that show any number of twenty classes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unlabeled.data.decode import decode_file
from unlabeled.data.sources.base import Source, Split
from unlabeled.data.sources.paths import PathList
from unlabeled.data.sources.roots import existing_folder
from unlabeled.errors import DataError
from unlabeled.registry import register

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)

LAYOUT = (
    "expected below root: JPEGImages/000005.jpg ..., ImageSets/Main/trainval.txt and test.txt, and "
    "for every class ImageSets/Main/<class>_trainval.txt and <class>_test.txt; VOC2007 comes in "
    "two archives, trainval and test, unpacked into one folder; extra_scripts/prepare_voc.py names "
    "all that is missing"
)


@register("dataset", "voc07")
class Voc07(Source):
    """The classification task of PASCAL VOC: twenty classes, several in one photograph.

    `multi_labels` int8 [N, 20] as the lists have them: 1 shown, -1 not shown, 0 shown but
    difficult. Images in the order of ImageSets/Main/<split>.txt. `root` is the folder that holds
    JPEGImages, or the VOCdevkit around a VOC2007.
    DataError: a list or an image is missing (with what and how many), or a line cannot be read.
    Reference: Everingham et al., The PASCAL Visual Object Classes Challenge 2007, section 3.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        root: str
        """The folder VOC2007, or the one around it; ~ is expanded."""
        train_list: str = "trainval"
        """Which of ImageSets/Main is for training: trainval, train or val."""
        test_list: str = "test"
        """Which is for testing: test, or val where the test annotations are not public."""

    def __init__(self, config: Config, *, split: Split) -> None:
        self.root = _folder(config.root)
        listed = config.train_list if split == "train" else config.test_list
        lists = self.root / "ImageSets" / "Main"
        wanted = [lists / f"{listed}.txt", *(lists / f"{name}_{listed}.txt" for name in CLASSES)]
        missing = [path.name for path in wanted if not path.is_file()]
        if missing:
            raise DataError(f"{lists} lacks {_some(missing)}; {LAYOUT}")
        names = [line[0] for line in _lines(wanted[0], width=1)]
        if not names:
            raise DataError(f"{wanted[0]} names no images")
        _require_images(self.root / "JPEGImages", names)
        self._names = PathList(names)
        self.classes = CLASSES
        self.multi_labels = np.stack([_column(path, names) for path in wanted[1:]], axis=1)

    def __len__(self) -> int:
        return len(self._names)

    def image(self, index: int) -> np.ndarray:
        path = self.root / "JPEGImages" / f"{self._names[index]}.jpg"
        return decode_file(path, at_least=self.decode_at_least)

    def name(self, index: int) -> str:
        """The number of the photograph."""
        return self._names[index]


def _folder(root: str) -> Path:
    """The folder that holds JPEGImages."""
    given = existing_folder(root, "root", LAYOUT)
    for folder in (given, given / "VOC2007"):
        if (folder / "JPEGImages").is_dir():
            return folder
    raise DataError(f"root: {root} has no folder JPEGImages; {LAYOUT}")


def _require_images(folder: Path, names: list[str]) -> None:
    there = set(os.listdir(folder))
    missing = [f"{name}.jpg" for name in names if f"{name}.jpg" not in there]
    if missing:
        raise DataError(
            f"{folder} lacks {len(missing)} of {len(names)} images: {_some(missing)}; {LAYOUT}"
        )


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"


def _column(path: Path, names: list[str]) -> np.ndarray:
    """One class's labels int8 [N], in the order of `names`."""
    labels = dict(_lines(path, width=2))
    unknown = [name for name in names if labels.get(name) not in ("-1", "0", "1")]
    if unknown:
        raise DataError(
            f"{path} has no label 1, 0 or -1 for {_some(unknown)}; unpack the archive again"
        )
    return np.array([int(labels[name]) for name in names], dtype=np.int8)


def _lines(path: Path, width: int) -> list[list[str]]:
    """The lines of a list as words; empty ones are left out."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    for number, words in enumerate(lines, start=1):
        if len(words) not in (0, width):
            raise DataError(f"{path}, line {number}: expected {width} words, got {words}")
    return [words for words in lines if words]
