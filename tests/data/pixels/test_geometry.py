from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as F

from unlabeled.data.pixels.geometry import CROP_DRAWS, planar, random_crop_box, resized_crop
from unlabeled.data.randomness import SampleKey, uniforms

RATIO = (3 / 4, 4 / 3)
DRAWS = 10_000


def boxes(
    width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float] = RATIO
) -> np.ndarray:
    """Left, top, width, height, float [DRAWS, 4]."""
    drawn = [
        random_crop_box(uniforms(SampleKey(0, 0, i), 0, CROP_DRAWS), width, height, scale, ratio)
        for i in range(DRAWS)
    ]
    array = np.array(drawn, dtype=np.float64)
    array[:, 2:] -= array[:, :2]
    return array


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "height", "scale"),
    [
        (500, 375, (0.14, 1.0)),
        (375, 500, (0.05, 0.14)),
        (32, 32, (0.08, 1.0)),
        (300, 90, (0.3, 1.0)),
    ],
)
def test_boxes_are_distributed_like_those_of_torchvision(
    width: int, height: int, scale: tuple[float, float]
) -> None:
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, list(scale), list(RATIO)) for _ in range(DRAWS)]
    )[:, [1, 0, 3, 2]]
    ours = boxes(width, height, scale)
    measures = {
        "left": lambda b: b[:, 0],
        "top": lambda b: b[:, 1],
        "area": lambda b: b[:, 2] * b[:, 3],
        "ratio": lambda b: b[:, 2] / b[:, 3],
        "right": lambda b: width - b[:, 0] - b[:, 2],
    }
    for name, measure in measures.items():
        assert ks_2samp(measure(ours), measure(theirs)).pvalue > 1e-3, name


def test_boxes_lie_inside_and_touch_every_border() -> None:
    drawn = boxes(20, 13, (0.08, 1.0))
    left, top = drawn[:, 0], drawn[:, 1]
    right, bottom = left + drawn[:, 2], top + drawn[:, 3]
    assert (left.min(), top.min(), right.max(), bottom.max()) == (0, 0, 20, 13)
    assert drawn[:, 2:].min() >= 1


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (1000, 10, (493, 0, 506, 10)),  # too wide: 13 = round(10 * 4/3), left (1000 - 13) // 2
        (10, 1000, (0, 493, 10, 506)),  # too tall: 13 = round(10 / (3/4))
    ],
)
def test_when_no_try_fits_the_largest_central_crop(
    width: int, height: int, expected: tuple[int, ...]
) -> None:
    draws = np.full(CROP_DRAWS, 0.999)
    assert random_crop_box(draws, width, height, (0.9, 1.0), RATIO) == expected
    generator = torch.empty(3, height, width)
    top, left, h, w = RandomResizedCrop.get_params(generator, [0.9, 1.0], list(RATIO))
    assert (left, top, left + w, top + h) == expected


def test_one_pixel_has_one_crop() -> None:
    assert random_crop_box(np.zeros(CROP_DRAWS), 1, 1, (0.05, 0.14), RATIO) == (0, 0, 1, 1)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [20, 96])
def test_pixels_are_those_of_torchvision(interpolation: str, size: int) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8))
    theirs = F.resized_crop(
        image, top=5, left=11, height=40, width=50, size=[size, size],
        interpolation=F.InterpolationMode(interpolation),
    )  # fmt: skip
    ours = resized_crop(image, (11, 5, 61, 45), size, interpolation)  # type: ignore[arg-type]
    assert ours.tobytes() == theirs.tobytes()


def test_planar_puts_channels_first() -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    view = planar(Image.fromarray(array))
    assert view.shape == (3, 5, 7) and view.flags.c_contiguous and view.flags.writeable
    assert all(np.array_equal(view[c], array[:, :, c]) for c in range(3))
