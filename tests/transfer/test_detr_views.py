"""Boxes follow their pixels through DETR's resizing and cropping."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unlabeled.transfer.detection_pictures import DRAWS, Picture
from unlabeled.transfer.detr_views import cropped, detr_view, new_size, resized


def marked(height: int, width: int, *boxes: tuple[int, int, int, int]) -> Picture:
    """Black, white in the boxes."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    for left, top, right, bottom in boxes:
        image[:, top:bottom, left:right] = 255
    return Picture(image, torch.tensor(boxes, dtype=torch.float32), torch.arange(len(boxes)))


def bright(picture: Picture) -> list[float]:
    """The edges of what is white: left, top, right, bottom."""
    light = picture.image[0] > 127
    rows, columns = light.any(dim=1).nonzero(), light.any(dim=0).nonzero()
    return [
        float(columns.min()), float(rows.min()), float(columns.max()) + 1, float(rows.max()) + 1
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("size", "shorter", "longest", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),
        ((640, 480), 800, 1333, (1067, 800)),
        ((300, 900), 800, 1333, (444, 1333)),
        ((300, 900), 800, None, (800, 2400)),
    ],
)
def test_the_shorter_side_is_as_asked_unless_the_longer_one_exceeds(
    size: tuple[int, int], shorter: int, longest: int | None, expected: tuple[int, int]
) -> None:
    assert new_size(*size, shorter, longest) == expected


def test_boxes_grow_with_the_picture() -> None:
    picture = marked(40, 60, (10, 5, 30, 25))
    larger = resized(picture, 120, None)
    assert larger.image.shape == (3, 120, 180)
    assert larger.boxes.tolist() == [[30, 15, 90, 75]] == [bright(larger)]


def test_a_crop_keeps_what_is_inside() -> None:
    picture = marked(40, 60, (10, 5, 30, 25), (50, 30, 60, 40))
    part = cropped(picture, 20, 10, 25, 30)
    assert part.image.shape == (3, 30, 25)
    assert part.boxes.tolist() == [[0, 0, 10, 15]] == [bright(part)]
    assert part.labels.tolist() == [0]
    nothing = cropped(picture, 0, 30, 10, 10)
    assert nothing.boxes.shape == (0, 4) and len(nothing.labels) == 0


@pytest.mark.parametrize("seed", range(6))
def test_the_box_of_a_view_is_around_its_pixels(seed: int) -> None:
    draws = np.random.default_rng(seed).random(DRAWS)
    view = detr_view([320, 400])(marked(300, 450, (120, 60, 330, 240)), draws)
    assert min(view.image.shape[1:]) in (320, 400)
    np.testing.assert_allclose(view.boxes[0].tolist(), bright(view), atol=1.5)


def test_crops_are_of_the_right_sizes_and_half_of_the_views_have_one() -> None:
    """Uncropped views keep the picture's proportions, 2 to 3."""
    random = np.random.default_rng(0)
    picture = marked(300, 450, (0, 0, 450, 300))
    shapes = [detr_view([200])(picture, random.random(DRAWS)).image.shape for _ in range(60)]
    whole = sum(shape[1:] == (200, 300) for shape in shapes)
    assert 18 <= whole <= 42
    # Crops of 384 to 600 pixels in both directions are never longer than 600 / 384.
    assert max(max(shape[1:]) for shape in shapes) <= 200 * 600 / 384 + 1
