"""Average precision as PASCAL VOC computes it, of one class."""

from __future__ import annotations

import numpy as np


def precision_counts(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True positives [T] and precision [T] at every distinct score, from the highest down.

    scores: float [n]; positive: bool [n]. Images of equal score enter together, so the order of the
    rows is irrelevant.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of each group of equal scores
    found = np.cumsum(positive[order])[last]
    return found, found / (np.flatnonzero(last) + 1)


def area(scores: np.ndarray, positive: np.ndarray, relevant: int | None = None) -> float:
    """Area under the precision-recall curve, in [0, 1]: VOC from 2010 on, and VISSL's for VOC07.

    AP = sum_i (r_i - r_{i-1}) max_{j >= i} p_j. relevant: how many there are to be found, where
    some have no score at all; None: the positives. ValueError without any.
    """
    total = _to_be_found(positive, relevant)
    if not len(scores):
        return 0.0
    found, precision = precision_counts(scores, positive)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # the best at this recall or a higher one
    steps = np.diff(found, prepend=0) / total
    return float(steps @ best)


def eleven_points(scores: np.ndarray, positive: np.ndarray, relevant: int | None = None) -> float:
    """VOC's measure up to 2009, in [0, 1]: mean over t = 0, 0.1 ... 1 of max_{j: r_j >= t} p_j.

    relevant: as in `area`.
    """
    total = _to_be_found(positive, relevant)
    if not len(scores):
        return 0.0
    found, precision = precision_counts(scores, positive)
    # In whole numbers: 3 of 10 found is a recall of 0.3 exactly.
    reached = 10 * found >= np.arange(11)[:, None] * total  # [11, T]
    return float(np.where(reached, precision, 0.0).max(axis=1).mean())


def _to_be_found(positive: np.ndarray, relevant: int | None) -> int:
    total = int(positive.sum()) if relevant is None else relevant
    if not total:
        raise ValueError("the average precision of a class that no image shows is not defined")
    return total
