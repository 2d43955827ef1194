"""VOC's average precision of boxes: by hand, and as pycocotools has it with VOC's points."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from unlabeled.errors import DataError
from unlabeled.transfer.detection_objects import Objects
from unlabeled.transfer.detector import Detections
from unlabeled.transfer.voc_metrics import THRESHOLDS, voc_metrics

Box = tuple[float, float, float, float]


def shown(*boxes: Box, labels: list[int] | None = None, difficult: tuple[int, ...] = ()) -> Objects:
    places = np.isin(np.arange(len(boxes)), difficult)
    return Objects(
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(labels if labels is not None else [0] * len(boxes), dtype=np.int64),
        places,
        b"[]",
    )


def found(*guesses: tuple[float, Box], labels: list[int] | None = None) -> Detections:
    return Detections(
        np.array([box for _, box in guesses], dtype=np.float32).reshape(-1, 4),
        np.array([score for score, _ in guesses], dtype=np.float32),
        np.array(labels if labels is not None else [0] * len(guesses), dtype=np.int64),
    )


ONE, TWO, FAR = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (50.0, 50.0, 60.0, 60.0)


def test_all_found_is_all_and_nothing_found_is_nothing() -> None:
    truth = [shown(ONE, TWO), shown(ONE)]
    whole = [found((0.9, ONE), (0.2, TWO)), found((0.5, ONE))]
    for year in (2007, 2012):
        assert voc_metrics(truth, whole, ["a"], year=year) == dict.fromkeys(
            ("AP", "AP50", "AP75"), pytest.approx(100)
        )
        assert voc_metrics(truth, [found(), found()], ["a"], year=year)["AP"] == 0


def test_the_curve_by_hand() -> None:
    """Right, wrong, right of three: precision 1 up to recall 1/3, then 2/3 up to 2/3."""
    truth = [shown(ONE, TWO), shown(ONE)]
    guesses = [found((0.9, ONE), (0.8, FAR), (0.7, TWO)), found()]
    area = voc_metrics(truth, guesses, ["a"], year=2012)
    assert area["AP50"] == pytest.approx(100 * (1 / 3 + 2 / 3 * 1 / 3))
    points = voc_metrics(truth, guesses, ["a"], year=2007)
    # Recall 0, 0.1, 0.2, 0.3 at precision 1; 0.4, 0.5, 0.6 at 2/3; the rest is never reached.
    assert points["AP50"] == pytest.approx(100 * (4 + 3 * 2 / 3) / 11)


def test_a_second_detection_of_an_object_is_wrong() -> None:
    guesses = [found((0.9, ONE), (0.8, ONE), (0.7, TWO))]
    once = voc_metrics([shown(ONE, TWO)], guesses, ["a"], year=2012)
    assert once["AP50"] == pytest.approx(100 * (1 / 2 + 2 / 3 * 1 / 2))


def test_difficult_objects_count_neither_way() -> None:
    guesses = [found((0.9, FAR), (0.8, FAR), (0.7, ONE))]
    easy = voc_metrics([shown(ONE, FAR, difficult=(1,))], guesses, ["a"], year=2012)
    assert easy["AP"] == pytest.approx(100)
    with pytest.raises(DataError, match=r"every a of the test split is marked difficult"):
        voc_metrics([shown(ONE, difficult=(0,))], [found()], ["a"], year=2012)


def test_overlap_decides_and_the_pixel_edges_are_those_of_voc() -> None:
    """A box moved by a third of its width has IoU 1/2, which is enough for 0.5 and no more."""
    moved = found((0.9, (4.0, 0.0, 16.0, 12.0)))
    metrics = voc_metrics([shown((0.0, 0.0, 12.0, 12.0))], [moved], ["a"], year=2012)
    assert metrics == {"AP": pytest.approx(10), "AP50": pytest.approx(100), "AP75": 0}


def test_classes_weigh_the_same() -> None:
    truth = [shown(ONE, TWO, FAR, labels=[0, 0, 1])]
    guesses = [found((0.9, ONE), (0.8, TWO), (0.7, TWO), labels=[0, 0, 1])]
    assert voc_metrics(truth, guesses, ["a", "b"], year=2012)["AP50"] == pytest.approx(50)


def random_case(seed: int) -> tuple[list[Objects], list[Detections]]:
    """Objects far apart, so that no detection touches two; detections near and beside them."""
    random = np.random.default_rng(seed)
    truth, guesses = [], []
    for _ in range(8):
        count = int(random.integers(1, 5))
        left = 100.0 * np.arange(count)
        boxes = np.stack([left, left, left + 40, left + 40], axis=1)
        truth.append(shown(*map(tuple, boxes)))
        near = boxes[random.random(count) < 0.8]
        near = near + random.normal(0, 4, near.shape)
        beside = boxes[random.random(count) < 0.5] + 2000
        scored = [(float(random.random()), tuple(box)) for box in np.concatenate([near, beside])]
        guesses.append(found(*scored))
    return truth, guesses


def by_pycocotools(truth: list[Objects], guesses: list[Detections]) -> np.ndarray:
    """AP at every threshold with 11 points of recall."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def entries(boxes: np.ndarray) -> list[list[float]]:
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        boxes = [(image, box) for image, each in enumerate(truth) for box in entries(each.boxes)]
        coco.dataset = {
            "info": {},
            "images": [{"id": number} for number in range(len(truth))],
            "categories": [{"id": 1}],
            "annotations": [
                {"id": n + 1, "image_id": image, "category_id": 1, "bbox": box, "iscrowd": 0}
                | {"area": box[2] * box[3]}
                for n, (image, box) in enumerate(boxes)
            ],
        }
        coco.createIndex()
        results = [
            {"image_id": image, "category_id": 1, "bbox": box, "score": score}
            for image, each in enumerate(guesses)
            for box, score in zip(entries(each.boxes), each.scores.tolist(), strict=True)
        ]
        judge = COCOeval(coco, coco.loadRes(results), "bbox")
        judge.params.recThrs = np.linspace(0, 1, 11)
        judge.evaluate()
        judge.accumulate()
    precision: np.ndarray = judge.eval["precision"][:, :, 0, 0, -1]  # [thresholds, 11]
    return precision.mean(axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_equals_pycocotools_with_eleven_points(seed: int) -> None:
    truth, guesses = random_case(seed)
    metrics = voc_metrics(truth, guesses, ["a"], year=2007)
    theirs = 100 * by_pycocotools(truth, guesses)
    assert 0 < metrics["AP75"] < metrics["AP50"] < 100
    assert len(theirs) == len(THRESHOLDS)
    assert metrics["AP"] == pytest.approx(theirs.mean())
    assert metrics["AP50"] == pytest.approx(theirs[0])
    assert metrics["AP75"] == pytest.approx(theirs[5])
