"""Where to cut: the random and central crops that the pipelines share, and how pixels leave PIL."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from PIL import Image

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are outside, as in PIL."""

Interpolation = Literal["bilinear", "bicubic"]
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

TRIES = 10  # torchvision.transforms.RandomResizedCrop
CROP_DRAWS = 2 * TRIES + 2
"""Uniforms of one random crop: (area, aspect ratio) of every try, then top and left."""


def random_crop_box(
    uniforms: Sequence[float],
    width: int,
    height: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Box:
    """The box of torchvision's RandomResizedCrop: area share uniform in `scale`, log-uniform ratio.

    The first of ten tries that fits the image is placed uniformly; if none fits, it is the largest
    central crop within the ratios. The first CROP_DRAWS of
    `uniforms`, in [0, 1), belong to it however many tries it takes, so that what is drawn behind
    them stays in place.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for k in range(0, 2 * TRIES, 2):
        area = (scale[0] + uniforms[k] * (scale[1] - scale[0])) * width * height
        aspect = math.exp(low + uniforms[k + 1] * (high - low))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(uniforms[2 * TRIES] * (height - h + 1))
            left = int(uniforms[2 * TRIES + 1] * (width - w + 1))
            return left, top, left + w, top + h
    return _largest_central_box(width, height, ratio)


def shorter_side_resized(
    picture: Image.Image, side: int, resampling: Image.Resampling
) -> Image.Image:
    """The picture with a shorter side of `side` pixels: torchvision's Resize; itself if it has."""
    if min(picture.size) == side:
        return picture
    width, height = (side * each // min(picture.size) for each in picture.size)
    return picture.resize((width, height), resampling)


def _largest_central_box(width: int, height: int, ratio: tuple[float, float]) -> Box:
    w, h = width, height
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def crop_problems(
    scale: tuple[float, float], ratio: tuple[float, float]
) -> Iterator[tuple[str, str]]:
    """Faults of a random crop's ranges."""
    if not 0 < scale[0] <= scale[1] <= 1:
        yield "scale", f"must be two shares of the area, 0 < low <= high <= 1, got {list(scale)}"
    if not 0 < ratio[0] <= ratio[1]:
        yield "ratio", f"must be two width / height ratios, 0 < low <= high, got {list(ratio)}"


def resized_crop(
    image: Image.Image, box: Box, size: int, interpolation: Interpolation
) -> Image.Image:
    """The box, resized to size x size."""
    # Cut first: `resize(box=...)` would let pixels outside the box in at its borders.
    return image.crop(box).resize((size, size), RESAMPLING[interpolation])


def planar(image: Image.Image) -> np.ndarray:
    """Uint8 [3, h, w], contiguous, of an RGB PIL image."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
