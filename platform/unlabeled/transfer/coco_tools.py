"""What pycocotools does for us: outlines as masks, and COCO's average precision."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from unlabeled.errors import DataError, EnvironmentProblem
from unlabeled.transfer.detection_data import COCOSplit
from unlabeled.transfer.detector import Detections


def require_pycocotools() -> None:
    """EnvironmentProblem that says how to install it, unless it imports."""
    try:
        importlib.import_module("pycocotools.mask")
    except ImportError as error:
        raise EnvironmentProblem(
            f"detection in COCO's layout needs pycocotools, which does not import ({error}); run "
            "`pip install 'unlabeled[detection]'`"
        ) from error


def drawn(outline: Any, height: int, width: int) -> np.ndarray:
    """The mask of one object, uint8 [height, width], from polygons or run lengths.

    DataError for an object without an outline.
    """
    from pycocotools import mask

    polygons = isinstance(outline, list) and outline and all(len(each) >= 6 for each in outline)
    if not polygons and not (isinstance(outline, dict) and {"size", "counts"} <= set(outline)):
        raise DataError(
            f"root: an object has no outline that can be drawn, but {str(outline)[:60]!r}; a "
            "detector without masks needs none"
        )
    lengths = mask.frPyObjects(outline, height, width)
    pixels: np.ndarray = mask.decode(mask.merge(lengths) if polygons else lengths)
    return pixels


def run_lengths(masks: np.ndarray) -> list[dict[str, Any]]:
    """Run lengths of bool masks [k, h, w]."""
    from pycocotools import mask

    pixels = np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8)
    found: list[dict[str, Any]] = mask.encode(pixels)
    return found


def coco_metrics(
    split: COCOSplit, found: Sequence[Detections], classes: Sequence[str]
) -> dict[str, float]:
    """AP, AP50 and AP75 of boxes in percent, and mask_AP, ... where masks were found.

    AP is the mean over IoU 0.5, 0.55, ... 0.95 and over the classes that occur, with 101 points of
    recall and at most 100 detections a picture: pycocotools' COCOeval. `found` has the order of
    `split.images()`. Detections of crowds count neither way.
    """
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        truth = COCO(str(split.json_file))
    truth.dataset.setdefault("info", {})
    numbers = {each["name"]: each["id"] for each in truth.dataset["categories"]}
    categories = [numbers[name] for name in classes]
    images = [each["id"] for each in truth.dataset["images"]]
    metrics = _evaluated(truth, _boxes(images, found, categories), "bbox", "")
    if any(each.masks is not None for each in found):
        metrics |= _evaluated(truth, _masks(images, found, categories), "segm", "mask_")
    return metrics


def _evaluated(
    truth: Any, entries: list[dict[str, Any]], kind: str, prefix: str
) -> dict[str, float]:
    from pycocotools.cocoeval import COCOeval

    names = [f"{prefix}{name}" for name in ("AP", "AP50", "AP75")]
    if not entries:  # COCO.loadRes looks at the first
        return dict.fromkeys(names, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(entries), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {n: 100 * float(v) for n, v in zip(names, evaluation.stats[:3], strict=True)}


def _boxes(
    images: list[int], found: Sequence[Detections], categories: list[int]
) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image,
            "category_id": categories[label],
            "bbox": [left, top, right - left, bottom - top],
            "score": score,
        }
        for image, each in zip(images, found, strict=True)
        for (left, top, right, bottom), score, label in zip(
            each.boxes.tolist(), each.scores.tolist(), each.labels.tolist(), strict=True
        )
    ]


def _masks(
    images: list[int], found: Sequence[Detections], categories: list[int]
) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image,
            "category_id": categories[label],
            "segmentation": mask,
            "score": score,
        }
        for image, each in zip(images, found, strict=True)
        for mask, score, label in zip(
            each.masks or [], each.scores.tolist(), each.labels.tolist(), strict=True
        )
    ]
