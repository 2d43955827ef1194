"""What the pictures of a split show: boxes, classes and outlines, from VOC's and COCO's files."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.errors import DataError
from unlabeled.transfer.detection_data import COCOSplit, DetectionSplit, VOCSplit


@dataclass(frozen=True)
class Objects:
    """The objects of one picture."""

    boxes: np.ndarray
    """float32 [n, 4]: left, top, right, bottom in pixels; the first pixel covers 0 to 1."""
    labels: np.ndarray
    """int64 [n], places in the list of classes."""
    difficult: np.ndarray
    """bool [n]: VOC asks nobody to find these."""
    outlines: bytes
    """JSON, a list of n: polygons or run lengths as COCO has them, or null."""


def objects_of(split: DetectionSplit, classes: Sequence[str]) -> list[Objects]:
    """The objects of every picture, in the order of `split.images()`; crowds are left out.

    Boxes are cut at the picture's border where its size is known, and empty ones left out.
    DataError for a file that is damaged or lacks what it must have. All classes that occur must be
    in `classes` (`detection_data.check_classes`).
    """
    places = {name: place for place, name in enumerate(classes)}
    if isinstance(split, VOCSplit):
        return [_of_xml(path, places) for path in split.annotations()]
    assert isinstance(split, COCOSplit)
    return list(_of_json(split, places))


def _of_xml(path: Path, places: dict[str, int]) -> Objects:
    """VOC counts pixels from 1 and means the last one inclusive."""
    try:
        found = [
            (
                [float(each.findtext(f"bndbox/{side}") or "") for side in _SIDES],
                places[each.findtext("name", default="")],
                each.findtext("difficult", default="0").strip() == "1",
            )
            for each in ElementTree.parse(path).findall("object")
        ]
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"root: {path} is no VOC annotation ({error}); unpack it again") from error
    return _objects(
        [[left - 1, top - 1, right, bottom] for (left, top, right, bottom), _, _ in found],
        [label for _, label, _ in found],
        [difficult for _, _, difficult in found],
        [None] * len(found),
    )


_SIDES = ("xmin", "ymin", "xmax", "ymax")


def _of_json(split: COCOSplit, places: dict[str, int]) -> Iterator[Objects]:
    """COCO's boxes are left, top, width and height."""
    try:
        content = json.loads(split.json_file.read_text(encoding="utf-8"))
        labels = {each["id"]: places.get(each["name"]) for each in content["categories"]}
        by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for each in content["annotations"]:
            if not each.get("iscrowd", 0):
                by_image[each["image_id"]].append(each)
        for image in content["images"]:
            found = by_image[image["id"]]
            boxes = np.array([each["bbox"] for each in found], dtype=np.float32).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            np.clip(boxes[:, 0::2], 0, image["width"], out=boxes[:, 0::2])
            np.clip(boxes[:, 1::2], 0, image["height"], out=boxes[:, 1::2])
            yield _objects(
                boxes,
                [labels[each["category_id"]] for each in found],
                [False] * len(found),
                [each.get("segmentation") for each in found],
            )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"root: {split.json_file} is no COCO annotation file: an entry has no usable {error}; "
            "unpack it again"
        ) from error


def _objects(boxes: Any, labels: list[Any], difficult: list[bool], outlines: list[Any]) -> Objects:
    edges = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    whole: np.ndarray = np.all(edges[:, 2:] > edges[:, :2], axis=1)
    return Objects(
        edges[whole],
        np.array(labels, dtype=np.int64)[whole],
        np.array(difficult, dtype=bool)[whole],
        json.dumps(
            [each for each, keep in zip(outlines, whole.tolist(), strict=True) if keep]
        ).encode(),
    )
