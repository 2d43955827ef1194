"""Average precision of boxes as PASCAL VOC computes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import box_iou

from unlabeled.errors import DataError
from unlabeled.evaluation.average_precision import area, eleven_points
from unlabeled.transfer.detection_objects import Objects
from unlabeled.transfer.detector import Detections

THRESHOLDS = np.arange(10, 20) / 20
"""Overlaps 0.5, 0.55, ... 0.95, over which AP is the mean, as COCO has it."""
LAST_OF_ELEVEN_POINTS = 2009


def voc_metrics(
    shown: Sequence[Objects], found: Sequence[Detections], classes: Sequence[str], *, year: int
) -> dict[str, float]:
    """AP, AP50 and AP75 in percent, means over classes; both lists have one entry a picture.

    A detection is right if the object of its class that it overlaps most has IoU >= the threshold
    and no detection of a higher score has claimed it; one of a difficult object counts neither way.
    The curve is VOC's of that year: 11 points up to 2009, its area since. DataError for a class
    that is only shown in difficult objects.
    Reference: Everingham et al., The PASCAL VOC Challenge, IJCV 2010, section 4.2.
    """
    curve = eleven_points if year <= LAST_OF_ELEVEN_POINTS else area
    table = np.empty((len(classes), len(THRESHOLDS)))
    for label, name in enumerate(classes):
        claims = _claims(shown, found, label)
        if not claims.relevant:
            raise DataError(
                f"root: every {name} of the test split is marked difficult, so its AP is "
                "undefined; give the other classes as benchmark.classes=[...]"
            )
        for column, threshold in enumerate(THRESHOLDS):
            scores, right = claims.judged(threshold)
            table[label, column] = curve(scores, right, claims.relevant)
    overlaps = 100 * table.mean(axis=0)
    return {"AP": float(overlaps.mean()), "AP50": float(overlaps[0]), "AP75": float(overlaps[5])}


@dataclass(frozen=True)
class _Claims:
    """The detections of one class, the highest score first."""

    scores: np.ndarray
    overlaps: np.ndarray
    """IoU with the object overlapped most."""
    objects: np.ndarray
    """Which object that is, counted over all pictures; -1 where the picture shows none."""
    difficult: np.ndarray
    """bool of every object."""

    @property
    def relevant(self) -> int:
        """Objects that are to be found."""
        return int((~self.difficult).sum())

    def judged(self, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """Scores of the detections that count, and which of them are right."""
        reached = (self.objects >= 0) & (self.overlaps >= threshold)
        claiming = np.flatnonzero(reached)
        _, first = np.unique(self.objects[claiming], return_index=True)
        right = np.zeros(len(self.scores), dtype=bool)
        right[claiming[first]] = True
        counts = np.ones(len(self.scores), dtype=bool)
        counts[claiming] = ~self.difficult[self.objects[claiming]]
        return self.scores[counts], right[counts]


def _claims(shown: Sequence[Objects], found: Sequence[Detections], label: int) -> _Claims:
    scores, overlaps, objects, difficult = ([np.empty(0)] for _ in range(4))
    seen = 0
    for truth, guess in zip(shown, found, strict=True):
        own, claimed = truth.labels == label, guess.labels == label
        best, place = _most_overlapped(guess.boxes[claimed], truth.boxes[own])
        scores.append(guess.scores[claimed])
        overlaps.append(best)
        objects.append(np.where(place >= 0, place + seen, -1))
        difficult.append(truth.difficult[own])
        seen += int(own.sum())
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return _Claims(
        np.concatenate(scores)[order],
        np.concatenate(overlaps)[order],
        np.concatenate(objects)[order].astype(np.int64),
        np.concatenate(difficult).astype(bool),
    )


def _most_overlapped(boxes: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU with, and place of, the object that each box overlaps most; 0 and -1 without objects."""
    if not len(truth) or not len(boxes):
        return np.zeros(len(boxes)), np.full(len(boxes), -1)
    ious = box_iou(torch.from_numpy(boxes).double(), torch.from_numpy(truth).double())
    best, place = ious.max(dim=1)
    return best.numpy(), place.numpy()
