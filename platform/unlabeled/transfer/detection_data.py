"""Pictures with boxes on disk: where VOC and COCO put them, and what of that is missing."""

from __future__ import annotations

import abc
import hashlib
import json
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from unlabeled.errors import DataError

Layout = Literal["voc", "coco"]

# In the order that VOC's own development kit lists them, which is alphabetical.
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_SHOWN = 5
"""Absent files that an error names."""


@dataclass(frozen=True)
class DetectionSplit(abc.ABC):
    """One split of a detection data set below `root`."""

    root: Path
    name: str
    """VOC: <year>_<list>, such as 2007_trainval; COCO: such as train2017."""

    @property
    @abc.abstractmethod
    def expected(self) -> str:
        """The layout, for messages."""

    @abc.abstractmethod
    def images(self) -> list[Path]:
        """The files that the split names; DataError if what names them is absent or damaged."""

    @abc.abstractmethod
    def annotations(self) -> list[Path]:
        """The files that hold boxes and classes."""

    @abc.abstractmethod
    def classes(self) -> tuple[str, ...]:
        """The classes that the annotations name."""

    def check(self) -> None:
        """DataError that names absent files and the layout expected."""
        files = [*self.annotations(), *self.images()]
        # One listing a folder: a hundred thousand single look-ups take minutes on a shared disk.
        present = {
            Path(folder) / name
            for folder in {str(file.parent) for file in files}
            if os.path.isdir(folder)
            for name in os.listdir(folder)
        }
        absent = [file for file in files if file not in present]
        if absent:
            shown = ", ".join(str(file.relative_to(self.root)) for file in absent[:_SHOWN])
            raise DataError(
                f"root: {len(absent)} of {len(files)} files of {self.name} are absent from "
                f"{self.root}: {shown}{', ...' if len(absent) > _SHOWN else ''}; "
                f"expected {self.expected}"
            )

    def fingerprint(self) -> str:
        """A short hash of the images' names and all annotations."""
        digest = hashlib.sha256("\n".join(path.name for path in self.images()).encode())
        for path in self.annotations():
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]

    def _absent(self, path: Path) -> DataError:
        return DataError(f"root: {path} is absent; expected {self.expected} below root={self.root}")


class VOCSplit(DetectionSplit):
    """VOC<year>/ with ImageSets/Main/<list>.txt, Annotations/*.xml and JPEGImages/*.jpg."""

    @property
    def expected(self) -> str:
        return (
            f"{self.folder.name}/ImageSets/Main/{self.list_name}.txt, "
            f"{self.folder.name}/Annotations/*.xml and {self.folder.name}/JPEGImages/*.jpg"
        )

    @property
    def year(self) -> int:
        """The year that the name begins with."""
        return int(self.name.partition("_")[0])

    @property
    def list_name(self) -> str:
        """trainval, test, ..."""
        return self.name.partition("_")[2]

    @property
    def folder(self) -> Path:
        """The year's folder."""
        return self.root / f"VOC{self.year}"

    @cached_property
    def _identifiers(self) -> list[str]:
        path = self.folder / "ImageSets" / "Main" / f"{self.list_name}.txt"
        if not path.is_file():
            raise self._absent(path)
        return path.read_text(encoding="utf-8").split()

    def images(self) -> list[Path]:
        return [self.folder / "JPEGImages" / f"{each}.jpg" for each in self._identifiers]

    def annotations(self) -> list[Path]:
        return [self.folder / "Annotations" / f"{each}.xml" for each in self._identifiers]

    def classes(self) -> tuple[str, ...]:
        """Those that occur, sorted."""
        found: set[str] = set()
        for path in self.annotations():
            try:
                objects = ElementTree.parse(path).findall("object")
            except ElementTree.ParseError as error:
                raise DataError(f"root: {path} is no XML ({error}); unpack it again") from error
            found.update(each.findtext("name", default="") for each in objects)
        return tuple(sorted(found))


class COCOSplit(DetectionSplit):
    """annotations/instances_<name>.json and the images in <name>/."""

    @property
    def expected(self) -> str:
        return f"annotations/instances_{self.name}.json and {self.name}/*.jpg"

    @property
    def json_file(self) -> Path:
        """Boxes, polygons and classes."""
        return self.root / "annotations" / f"instances_{self.name}.json"

    @property
    def folder(self) -> Path:
        """Where the images lie."""
        return self.root / self.name

    @cached_property
    def _content(self) -> dict[str, Any]:
        """Images and classes; of COCO's training file the boxes would fill gigabytes."""
        if not self.json_file.is_file():
            raise self._absent(self.json_file)
        try:
            content = json.loads(self.json_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"root: {self.json_file} is no JSON ({error}); unpack it again") from (
                error
            )
        return {key: content[key] for key in ("images", "categories")}

    def images(self) -> list[Path]:
        return [self.folder / image["file_name"] for image in self._content["images"]]

    def annotations(self) -> list[Path]:
        return [self.json_file]

    def classes(self) -> tuple[str, ...]:
        """Those that the file lists, by number."""
        listed = sorted(self._content["categories"], key=lambda category: category["id"])
        return tuple(category["name"] for category in listed)


def detection_split(layout: Layout, root: str, name: str) -> DetectionSplit:
    """The split of that name below `root` (~ is expanded); nothing is read yet."""
    folder = Path(root).expanduser()
    return VOCSplit(folder, name) if layout == "voc" else COCOSplit(folder, name)


def name_problem(layout: Layout, name: str) -> str | None:
    """What is wrong with the name of a split, before anything is read."""
    if layout == "voc" and not re.fullmatch(r"(2007|2012)_\w+", name):
        return f"a VOC split is <2007 or 2012>_<list>, such as 2007_trainval, got {name!r}"
    return None


def class_names(
    layout: Layout, given: list[str] | None, train: Sequence[DetectionSplit]
) -> list[str]:
    """Those that were given, or the twenty of VOC, or those that COCO's training file lists."""
    if given is not None:
        return given
    return list(VOC_CLASSES) if layout == "voc" else list(train[0].classes())


def check_classes(train: list[DetectionSplit], test: DetectionSplit, names: list[str]) -> None:
    """DataError unless train and test agree on the classes `names`, of which AP is the mean."""
    for split in [*train, test]:
        unknown = sorted(set(split.classes()) - set(names))
        if unknown:
            raise DataError(
                f"{split.name} has objects of {', '.join(unknown[:_SHOWN])}, which are none of the "
                f"{len(names)} classes; give them all as benchmark.classes=[...]"
            )
    absent = sorted(set(names) - set(test.classes()))
    if absent:
        raise DataError(
            f"{test.name} has no object of {', '.join(absent[:_SHOWN])}, so their AP is undefined; "
            "give the classes that occur as benchmark.classes=[...]"
        )
