"""Images in a folder, as deep as they may lie."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unlabeled.data.decode import decode_file
from unlabeled.data.sources.base import Source, Split
from unlabeled.data.sources.labels import class_names, class_numbers
from unlabeled.data.sources.paths import PathList
from unlabeled.data.sources.roots import existing_folder
from unlabeled.errors import DataError
from unlabeled.registry import register

logger = logging.getLogger(__name__)

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"),
)


@register("dataset", "folder")
class Folder(Source):
    """Every image below a folder, in sorted order.

    Where `root` has a subfolder `train` and one named `val` or `test` (`val` is preferred), these
    are the splits; otherwise all of `root` is for training and `test_root` for testing. With
    `labels: folder`, the label is the name of the first subfolder, provided that every image of the
    split lies in one; otherwise there are no labels. Classes are those of both splits together.
    Hidden entries are skipped, links are followed unless they lead back to a folder they lie in.
    DataError: the folder is missing, is no folder, or holds no image; there is no test split.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        root: str
        """Folder of images, or of train/ and val/ or test/; ~ is expanded."""
        test_root: str | None = None
        """Folder of the test images, where they are not in root/val or root/test."""
        labels: Literal["folder", "none"] = "folder"
        """Label by first subfolder, or ignore what folders are called."""

    def __init__(self, config: Config, *, split: Split) -> None:
        folders = _split_folders(config)
        if split not in folders:
            raise DataError(
                f"{config.root} has no test split: it has no subfolders train/ and val/ or test/; "
                "give the folder of the test images as test_root"
            )
        self.root = folders[split]
        others: Counter[str] = Counter()
        self._paths = PathList(_images(self.root, "", (), others))
        if not len(self._paths):
            raise DataError(_nothing_found(self.root, others))
        if config.labels == "folder":
            self._label(folders)

    def _label(self, folders: dict[str, str]) -> None:
        paths = (self._paths[index] for index in range(len(self)))
        labels = [sys.intern(os.path.dirname(path).partition(os.sep)[0]) for path in paths]
        if "" not in labels:
            listed = [_classes_in(folder) for folder in folders.values() if folder != self.root]
            self.classes = class_names(labels, *listed)
            self.labels = class_numbers(labels, self.classes)

    def __len__(self) -> int:
        return len(self._paths)

    def image(self, index: int) -> np.ndarray:
        path = os.path.join(self.root, self._paths[index])
        return decode_file(path, at_least=self.decode_at_least)

    def name(self, index: int) -> str:
        """The path below the split's folder."""
        return self._paths[index]


def _split_folders(config: Folder.Config) -> dict[str, str]:
    root = str(existing_folder(config.root, "root"))
    train, val, test = (os.path.join(root, name) for name in ("train", "val", "test"))
    held_out = next((folder for folder in (val, test) if os.path.isdir(folder)), None)
    folders = {"train": root}
    if os.path.isdir(train) and held_out:
        folders = {"train": train, "test": held_out}
    if config.test_root is not None:
        folders["test"] = str(existing_folder(config.test_root, "test_root"))
    return folders


def _images(
    root: str, below: str, ancestors: tuple[tuple[int, int], ...], others: Counter[str]
) -> Iterator[str]:
    """Paths of the images in root/below, relative to root, sorted; `others` counts other files."""
    folder = os.path.join(root, below)
    try:
        status = os.stat(folder)
        entries = _listing(folder)
    except OSError as error:
        if not below:
            raise DataError(f"cannot list {root}: {error.strerror}") from error
        logger.warning("skipped %s: %s", folder, error.strerror)
        return
    identity = (status.st_dev, status.st_ino)
    if identity in ancestors:
        return  # a link back to a folder that it lies in
    for entry in entries:
        path = os.path.join(below, entry.name)
        if _is_folder(entry):
            yield from _images(root, path, (*ancestors, identity), others)
        elif _is_image(entry):
            yield path
        else:
            others[os.path.splitext(entry.name)[1].lower() or "no extension"] += 1


def _listing(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    return sorted(visible, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_image(entry: os.DirEntry[str]) -> bool:
    """By name; a dangling link counts, so that it is reported as broken and not lost silently."""
    if os.path.splitext(entry.name)[1].lower() not in EXTENSIONS:
        return False
    try:
        return entry.is_file() or entry.is_symlink()
    except OSError:
        return True


def _classes_in(root: str) -> list[str]:
    """First-level subfolders that hold an image somewhere below; none if images lie beside them."""
    first: list[str] = []
    for entry in _listing(root):
        if _is_folder(entry):
            if next(_images(root, entry.name, (), Counter()), None) is not None:
                first.append(entry.name)
        elif _is_image(entry):
            return []
    return first


def _nothing_found(root: str, others: Counter[str]) -> str:
    seen = ", ".join(f"{count} {kind}" for kind, count in others.most_common(5))
    return (
        f"no images in {root}: other files seen: {seen or 'none'}; "
        f"files read as images are {' '.join(EXTENSIONS)}"
    )
