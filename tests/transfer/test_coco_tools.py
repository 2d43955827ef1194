"""Our detections reach pycocotools as they are, and its masks reach us."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests_support.detection_sets import CLASSES, Picture, pictures, write_coco
from unlabeled.errors import DataError, EnvironmentProblem
from unlabeled.transfer.coco_tools import coco_metrics, drawn, require_pycocotools, run_lengths
from unlabeled.transfer.detection_data import COCOSplit
from unlabeled.transfer.detector import Detections

NAMES = list(CLASSES)
PICTURES = pictures(6, seed=0)


@pytest.fixture
def split(tmp_path: Path) -> COCOSplit:
    write_coco(tmp_path, "val2017", PICTURES)
    return COCOSplit(tmp_path, "val2017")


def truth(picture: Picture, score: float = 0.9, masks: bool = False) -> Detections:
    boxes = [[b.left, b.top, b.right, b.bottom] for b in picture.boxes]
    filled = np.zeros((len(boxes), *picture.pixels.shape[:2]), dtype=bool)
    for row, box in enumerate(picture.boxes):
        filled[row, box.top : box.bottom, box.left : box.right] = True
    return Detections(
        np.array(boxes, dtype=np.float32),
        np.full(len(boxes), score, dtype=np.float32),
        np.array([NAMES.index(b.name) for b in picture.boxes]),
        run_lengths(filled) if masks else None,
    )


def none(masks: bool = False) -> Detections:
    empty = np.zeros(0, dtype=np.int64)
    return Detections(np.zeros((0, 4)), empty.astype(float), empty, [] if masks else None)


def test_all_found_is_all_boxes_and_masks(split: COCOSplit) -> None:
    metrics = coco_metrics(split, [truth(each) for each in PICTURES], NAMES)
    assert metrics == dict.fromkeys(("AP", "AP50", "AP75"), pytest.approx(100))
    metrics = coco_metrics(split, [truth(each, masks=True) for each in PICTURES], NAMES)
    names = ["AP", "AP50", "AP75", "mask_AP", "mask_AP50", "mask_AP75"]
    assert metrics == dict.fromkeys(names, pytest.approx(100)) and list(metrics) == names


def test_nothing_found_is_nothing(split: COCOSplit) -> None:
    assert coco_metrics(split, [none()] * 6, NAMES) == {"AP": 0, "AP50": 0, "AP75": 0}
    assert coco_metrics(split, [none(masks=True)] * 6, NAMES)["mask_AP"] == 0


def test_what_is_missed_is_missed_by_class(split: COCOSplit) -> None:
    """Without the pictures of one class: recall r of 101 points at precision 1."""
    kept = [truth(each) if place < 3 else none() for place, each in enumerate(PICTURES)]
    expected = []
    for name in NAMES:
        shown = [sum(box.name == name for box in each.boxes) for each in PICTURES]
        recall = sum(shown[:3]) / sum(shown)
        expected.append(sum(point <= recall + 1e-9 for point in np.arange(101) / 100) / 101)
    assert coco_metrics(split, kept, NAMES)["AP"] == pytest.approx(100 * np.mean(expected))


def test_classes_are_matched_by_name_and_not_by_number(split: COCOSplit) -> None:
    found = [truth(each) for each in PICTURES]
    assert coco_metrics(split, found, NAMES[::-1])["AP"] < 60
    for each in found:
        each.labels[:] = len(NAMES) - 1 - each.labels
    assert coco_metrics(split, found, NAMES[::-1])["AP"] == pytest.approx(100)


def test_masks_are_judged_by_their_own_shape(split: COCOSplit) -> None:
    """Right boxes with empty masks."""
    found = [truth(each, masks=True) for each in PICTURES]
    for each in found:
        assert each.masks is not None
        each.masks[:] = run_lengths(np.zeros((len(each.masks), 96, 96), dtype=bool))
    metrics = coco_metrics(split, found, NAMES)
    assert metrics["AP"] == pytest.approx(100) and metrics["mask_AP"] == 0


def test_outlines_become_masks() -> None:
    square = drawn([[1, 1, 4, 1, 4, 3, 1, 3]], 5, 6)
    expected = np.zeros((5, 6), dtype=np.uint8)
    expected[1:3, 1:4] = 1
    assert np.array_equal(square, expected)
    lengths = {"size": [2, 2], "counts": [1, 2, 1]}  # by columns, beginning with zeros
    assert np.array_equal(drawn(lengths, 2, 2), [[0, 1], [1, 0]])
    for wrong in (None, [], [[1, 2]], {"size": [2, 2]}):
        with pytest.raises(DataError, match="no outline that can be drawn"):
            drawn(wrong, 5, 6)


def test_nothing_is_printed_on_the_way(
    split: COCOSplit, capsys: pytest.CaptureFixture[str]
) -> None:
    coco_metrics(split, [truth(each) for each in PICTURES], NAMES)
    assert capsys.readouterr().out == ""


def test_an_annotation_file_may_lack_what_nobody_needs(split: COCOSplit) -> None:
    content = json.loads(split.json_file.read_text())
    assert "info" not in content
    split.json_file.write_text(json.dumps(content | {"info": {"year": 2017}}))
    assert coco_metrics(split, [truth(each) for each in PICTURES], NAMES)["AP"] > 99


def test_without_pycocotools_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require_pycocotools()
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'unlabeled\[detection\]'"):
        require_pycocotools()
