"""What DETR sees of a picture in training: mirrored, resized, and half of the time cropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from unlabeled.transfer.detection_pictures import Picture, View, flipped

LONGEST_SIDE = 1333
"""Pixels of the longer side at most (DETR)."""
SIZES_BEFORE_CROP = (400, 500, 600)
"""Shorter sides of a picture that is about to be cropped (DETR)."""
SMALLEST_CROP, LARGEST_CROP = 384, 600
"""Sides of a crop, each drawn on its own (DETR)."""


def detr_view(sizes: Sequence[int]) -> View:
    """Mirrored with probability 1/2; cropped with probability 1/2; resized to one of `sizes`.

    Reference: Carion et al., DETR, arXiv:2005.12872, section 4, and its code.
    """

    def view(picture: Picture, draws: np.ndarray) -> Picture:
        _, cropping, before, width, height, left, top, after = draws.tolist()
        picture = flipped(picture, draws)
        if cropping < 0.5:
            picture = resized(picture, _one(SIZES_BEFORE_CROP, before), None)
            picture = cropped(picture, *_crop(picture.image, width, height, left, top))
        return resized(picture, _one(sizes, after), LONGEST_SIDE)

    return view


def _one(values: Sequence[int], draw: float) -> int:
    return values[int(draw * len(values))]


def _crop(
    image: Tensor, width: float, height: float, left: float, top: float
) -> tuple[int, int, int, int]:
    """Left, top, width and height of a crop, from four numbers in [0, 1)."""
    full_height, full_width = image.shape[1:]
    columns, rows = _side(full_width, width), _side(full_height, height)
    return (
        int(left * (full_width - columns + 1)),
        int(top * (full_height - rows + 1)),
        columns,
        rows,
    )


def _side(full: int, draw: float) -> int:
    smallest, largest = min(SMALLEST_CROP, full), min(LARGEST_CROP, full)
    return smallest + int(draw * (largest - smallest + 1))


def resized(picture: Picture, shorter: int, longest: int | None) -> Picture:
    """The picture with a shorter side of `shorter` pixels, less where the longer one would exceed.

    Bilinear with antialiasing; boxes follow.
    """
    assert picture.masks is None
    height, width = picture.image.shape[1:]
    new = new_size(height, width, shorter, longest)
    scale = torch.tensor([new[1] / width, new[0] / height] * 2)
    return replace(
        picture,
        image=F.resize(picture.image, list(new), antialias=True),
        boxes=picture.boxes * scale,
    )


def new_size(height: int, width: int, shorter: int, longest: int | None) -> tuple[int, int]:
    """Height and width in the same proportions."""
    scale = shorter / min(height, width)
    if longest is not None:
        scale = min(scale, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def cropped(picture: Picture, left: int, top: int, width: int, height: int) -> Picture:
    """The part of a picture, with what is left of its boxes; those outside are gone."""
    assert picture.masks is None
    corner = torch.tensor([left, top] * 2)
    limit = torch.tensor([width, height] * 2)
    boxes = torch.minimum((picture.boxes - corner).clamp(min=0), limit)
    seen = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    return replace(
        picture,
        image=picture.image[:, top : top + height, left : left + width],
        boxes=boxes[seen],
        labels=picture.labels[seen],
    )
