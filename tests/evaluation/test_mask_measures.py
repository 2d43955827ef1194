from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from unlabeled.evaluation.mask_measures import boundary, boundary_accuracy, region_similarity


def box(top: int, bottom: int, left: int, right: int, size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def test_regions_by_hand() -> None:
    one, other = box(0, 4, 0, 4, (8, 8)), box(2, 6, 0, 4, (8, 8))
    assert region_similarity(one, other) == 8 / 24
    assert region_similarity(one, one) == 1 and region_similarity(one, ~one) == 0
    empty = np.zeros((8, 8), dtype=bool)
    assert region_similarity(empty, empty) == 1 and region_similarity(one, empty) == 0


def test_the_boundary_of_a_square_by_hand() -> None:
    expected = ["......", ".####.", ".#..#.", ".#..#.", ".####.", "......"]
    drawn = boundary(box(2, 5, 2, 5, (6, 6)))
    assert ["".join(".#"[pixel] for pixel in row) for row in drawn.astype(int)] == expected
    corner = boundary(box(3, 6, 0, 6, (6, 6)))  # reaches three edges of the picture: one line
    assert np.array_equal(np.flatnonzero(corner.any(axis=1)), [2]) and corner[2].all()


def test_boundaries_by_hand() -> None:
    """100 x 100 pixels: boundaries may be ceil(0.008 x 141.4) = 2 pixels apart."""
    truth = box(20, 60, 20, 60, (100, 100))
    for shift, expected in ((0, 1.0), (1, 1.0), (2, 1.0)):
        assert boundary_accuracy(box(20 + shift, 60 + shift, 20, 60, (100, 100)), truth) == expected
    # A square that is 10 larger on all sides: no pixel of the one is near the other.
    assert boundary_accuracy(box(10, 70, 10, 70, (100, 100)), truth) == 0
    # Half as tall: the lower edge is nowhere near; of the sides all is, as far as it goes.
    half = boundary_accuracy(box(20, 40, 20, 60, (100, 100)), truth)
    assert 0.5 < half < 0.9
    empty = np.zeros((100, 100), dtype=bool)
    assert boundary_accuracy(empty, empty) == 1
    assert boundary_accuracy(empty, truth) == boundary_accuracy(truth, empty) == 0


@pytest.mark.parametrize("seed", range(4))
def test_equals_pairs_of_pixels_counted_one_by_one(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask, truth = (
        np.kron(random.random((6, 8)) < 0.4, np.ones((5, 5))).astype(bool) for _ in range(2)
    )
    own, true = (np.argwhere(_naive_boundary(each)).tolist() for each in (mask, truth))
    reach = math.ceil(0.008 * math.sqrt(30**2 + 40**2))

    def near(pixels: list[list[int]], others: list[list[int]]) -> float:
        return sum(any(math.dist(a, b) <= reach for b in others) for a in pixels) / len(pixels)

    precision, recall = near(own, true), near(true, own)
    expected = 2 * precision * recall / (precision + recall)
    assert boundary_accuracy(mask, truth) == pytest.approx(expected)
    assert boundary_accuracy(truth, mask) == pytest.approx(expected)


def _naive_boundary(mask: np.ndarray) -> np.ndarray:
    """Pixel by pixel: does one of the three later neighbours that exist differ?"""
    found = np.zeros_like(mask)
    height, width = mask.shape
    for i, j in itertools.product(range(height), range(width)):
        later = [(i, j + 1), (i + 1, j), (i + 1, j + 1)]
        found[i, j] = any(mask[a, b] != mask[i, j] for a, b in later if a < height and b < width)
    return found
