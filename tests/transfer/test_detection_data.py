"""What is absent from a detection data set is named before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests_support.detection_sets import CLASSES, pictures, write_coco, write_voc
from unlabeled.errors import DataError
from unlabeled.transfer.detection_data import (
    VOC_CLASSES,
    check_classes,
    detection_split,
    name_problem,
)
from unlabeled.transfer.detection_images import DetectionImages


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_voc(tmp_path, "2007_trainval", pictures(4, seed=0))
    write_voc(tmp_path, "2007_test", pictures(3, seed=1))
    write_coco(tmp_path, "train2017", pictures(4, seed=0))
    return tmp_path


def test_a_whole_split_passes_and_lists_its_images(root: Path) -> None:
    for layout, name in (("voc", "2007_trainval"), ("coco", "train2017")):
        split = detection_split(layout, str(root), name)
        split.check()
        assert len(split.images()) == 4
        assert set(split.classes()) == set(CLASSES)
        images = DetectionImages([split])
        assert images.image(3).shape == (96, 96, 3)
        assert (root / images.name(3)).is_file()


def test_absent_files_are_counted_and_named_with_the_layout(root: Path) -> None:
    (root / "VOC2007" / "JPEGImages" / "trainval002.jpg").unlink()
    (root / "VOC2007" / "Annotations" / "trainval001.xml").unlink()
    message = (
        r"2 of 8 files of 2007_trainval are absent from .*: "
        r"VOC2007/Annotations/trainval001.xml, VOC2007/JPEGImages/trainval002.jpg; "
        r"expected VOC2007/ImageSets/Main/trainval.txt"
    )
    with pytest.raises(DataError, match=message):
        detection_split("voc", str(root), "2007_trainval").check()
    detection_split("voc", str(root), "2007_test").check()
    (root / "train2017" / "000000000001.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 5 files of train2017 .*000000000001.jpg"):
        detection_split("coco", str(root), "train2017").check()


@pytest.mark.parametrize(
    ("layout", "name", "file"),
    [
        ("voc", "2012_trainval", "VOC2012/ImageSets/Main/trainval.txt"),
        ("coco", "val2017", "annotations/instances_val2017.json"),
    ],
)
def test_a_split_that_is_not_there_names_the_file(
    root: Path, layout: str, name: str, file: str
) -> None:
    with pytest.raises(DataError, match=f"{file} is absent; expected"):
        detection_split(layout, str(root), name).check()  # type: ignore[arg-type]


def test_half_an_annotation_file_is_named(root: Path) -> None:
    path = root / "annotations" / "instances_train2017.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(DataError, match=r"instances_train2017.json is no JSON"):
        detection_split("coco", str(root), "train2017").check()
    path = root / "VOC2007" / "Annotations" / "test001.xml"
    path.write_text(path.read_text()[:40])
    with pytest.raises(DataError, match=r"test001.xml is no XML"):
        detection_split("voc", str(root), "2007_test").classes()


def test_classes_of_train_test_and_config_must_agree(root: Path) -> None:
    train = detection_split("voc", str(root), "2007_trainval")
    test = detection_split("voc", str(root), "2007_test")
    check_classes([train], test, list(CLASSES))
    with pytest.raises(DataError, match=r"has objects of chelsea, .*none of the 2 classes"):
        check_classes([train], test, ["coffee", "rocket"])
    with pytest.raises(DataError, match=r"has no object of hubble, so their AP is undefined"):
        check_classes([train], test, [*CLASSES, "hubble"])


def test_any_change_of_the_annotations_changes_the_fingerprint(root: Path) -> None:
    images = DetectionImages([detection_split("coco", str(root), "train2017")])
    before = images.fingerprint()
    assert DetectionImages(images.splits).fingerprint() == before
    path = root / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][0] += 1
    path.write_text(json.dumps(content))
    changed = DetectionImages([detection_split("coco", str(root), "train2017")])
    assert changed.fingerprint() != before


def test_names_of_splits() -> None:
    assert name_problem("voc", "2007_test") is None and name_problem("coco", "val2017") is None
    assert "got 'trainval'" in str(name_problem("voc", "trainval"))
    assert len(set(VOC_CLASSES)) == 20 and list(VOC_CLASSES) == sorted(VOC_CLASSES)
