"""How well a mask agrees with the true one: region J and boundary F, as DAVIS measures them."""

from __future__ import annotations

import math

import numpy as np

# Boundaries may be this part of the image's diagonal apart (Perazzi et al., CVPR 2016).
BOUNDARY_TOLERANCE = 0.008


def region_similarity(mask: np.ndarray, truth: np.ndarray) -> float:
    """J = |mask and truth| / |mask or truth|, of bool [h, w]; 1 where both are empty."""
    union = int((mask | truth).sum())
    return 1.0 if union == 0 else int((mask & truth).sum()) / union


def boundary_accuracy(mask: np.ndarray, truth: np.ndarray) -> float:
    """F = 2 P R / (P + R) of boundary pixels, of bool [h, w].

    P: share of the mask's boundary within ceil(0.008 x diagonal) pixels of the true one; R: the
    other way round. Without a boundary a share is 1, and it is 0 where only the other has one.
    """
    own, true = boundary(mask), boundary(truth)
    if not own.any() or not true.any():
        return float(own.any() == true.any())
    reach = math.ceil(BOUNDARY_TOLERANCE * math.hypot(*mask.shape))
    precision, recall = _share_near(own, true, reach), _share_near(true, own, reach)
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def boundary(mask: np.ndarray) -> np.ndarray:
    """bool [h, w]: pixels that differ from their right, lower or lower right neighbour.

    A mask that is cut off by the picture's edge has no boundary there.
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, across = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    found: np.ndarray = (mask != right) | (mask != below) | (mask != across)
    return found


def _share_near(pixels: np.ndarray, others: np.ndarray, reach: int) -> float:
    """Share of `pixels` that have one of `others` at a distance of at most `reach`."""
    from scipy.ndimage import distance_transform_edt

    near = distance_transform_edt(~others) <= reach
    return float((pixels & near).sum() / pixels.sum())
