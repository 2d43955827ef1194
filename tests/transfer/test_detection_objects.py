"""The same objects are read from VOC's and from COCO's files, in pixels of the picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests_support.detection_sets import CLASSES, pictures, write_coco, write_voc
from unlabeled.errors import DataError
from unlabeled.transfer.detection_data import DetectionSplit, detection_split
from unlabeled.transfer.detection_objects import Objects, objects_of

NAMES = list(CLASSES)
PICTURES = pictures(4, seed=0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_voc(tmp_path, "2007_trainval", PICTURES)
    write_coco(tmp_path, "train2017", PICTURES)
    return tmp_path


def voc(root: Path) -> list[Objects]:
    return objects_of(detection_split("voc", str(root), "2007_trainval"), NAMES)


def coco(root: Path) -> DetectionSplit:
    return detection_split("coco", str(root), "train2017")


def rewrite(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_boxes_are_the_pixels_that_were_pasted_in_both_layouts(root: Path) -> None:
    for found in (voc(root), objects_of(coco(root), NAMES)):
        assert len(found) == len(PICTURES)
        for objects, picture in zip(found, PICTURES, strict=True):
            expected = [[b.left, b.top, b.right, b.bottom] for b in picture.boxes]
            assert objects.boxes.tolist() == expected and objects.boxes.dtype == np.float32
            assert [NAMES[label] for label in objects.labels] == [b.name for b in picture.boxes]
            assert not objects.difficult.any()


def test_labels_follow_the_order_of_the_classes(root: Path) -> None:
    backwards = objects_of(coco(root), NAMES[::-1])
    for one, other in zip(objects_of(coco(root), NAMES), backwards, strict=True):
        assert (one.labels + other.labels == len(NAMES) - 1).all()


def test_difficult_objects_are_marked(root: Path) -> None:
    path = root / "VOC2007" / "Annotations" / "trainval001.xml"
    text = path.read_text()
    path.write_text(text.replace("<difficult>0", "<difficult>1", 1))
    assert voc(root)[1].difficult.tolist() == [True, False]


def test_crowds_and_empty_boxes_are_left_out_and_long_ones_cut(root: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        first, second, third = content["annotations"][:3]
        first["bbox"] = [-5.0, 90.0, 20.0, 50.0]
        second["iscrowd"], third["bbox"] = 1, [96.0, 0.0, 10.0, 10.0]

    rewrite(root, change)
    found = objects_of(coco(root), NAMES)
    assert found[0].boxes.tolist() == [[0, 90, 15, 96]]
    assert len(found[1].labels) == 0 and found[1].boxes.shape == (0, 4)
    assert json.loads(found[1].outlines) == []


def test_damaged_files_are_named(root: Path) -> None:
    path = root / "VOC2007" / "Annotations" / "trainval001.xml"
    path.write_text(path.read_text().replace("<ymax>", "<ymax>x"))
    with pytest.raises(DataError, match=r"trainval001.xml is no VOC annotation"):
        voc(root)
    rewrite(root, lambda content: content["annotations"][2].pop("bbox"))
    with pytest.raises(DataError, match=r"instances_train2017.json is no COCO .*'bbox'"):
        objects_of(coco(root), NAMES)
