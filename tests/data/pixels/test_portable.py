from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from unlabeled.data.pixels.base import STEPS, Step, Steps, ViewPlan
from unlabeled.data.pixels.box_blur import gaussian_box
from unlabeled.data.pixels.geometry import Box, Interpolation
from unlabeled.data.pixels.portable import Portable
from unlabeled.data.pixels.reference import Reference
from unlabeled.data.randomness import SampleKey
from unlabeled.data.transforms.multi_crop import MultiCrop
from unlabeled.data.types import ViewSpec

PHOTOGRAPH: np.ndarray = data.astronaut()  # type: ignore[no-untyped-call]
NOISE = np.random.default_rng(0).integers(0, 256, (300, 320, 3), dtype=np.uint8)
PLAIN = np.broadcast_to(np.array([255, 0, 77], np.uint8), (120, 130, 3))
IMAGES = {"photograph": PHOTOGRAPH, "noise": NOISE, "plain": PLAIN}
SIZE = 96

EXACT: list[Step] = [
    ("horizontal_flip", 0.0),
    ("vertical_flip", 0.0),
    ("grayscale", 0.0),
    *[("solarize", threshold) for threshold in (0.0, 1.0, 128.0, 255.0, 256.0)],
    *[
        (name, factor)
        for name in ("brightness", "contrast", "saturation")
        for factor in (0.0, 1639 / 8192, 0.5, 0.731, 1.0, 11223 / 8192, 1.8, 4.0)
    ],
]
HUES = (-0.5, -0.2, -0.1003, -0.001, 0.0, 0.0999, 0.2, 0.5)
SIGMAS = (0.1, 0.35, 0.8, 1.0, 1.3, 1.414, 1.7, 1.93, 3.3, 9.0)


def both(
    image: np.ndarray,
    steps: Steps,
    box: Box = (10, 15, 10 + SIZE, 15 + SIZE),
    size: int = SIZE,
    interpolation: Interpolation = "bilinear",
) -> tuple[np.ndarray, np.ndarray]:
    """What the reference and the portable backend make, as integers [3, size, size]."""
    plan = ViewPlan(ViewSpec(size, "global"), box, interpolation, steps)
    views = []
    for renderer in (Reference(), Portable()):
        view = np.full((3, size, size), 99, np.uint8)
        renderer(image, [plan], [view])
        views.append(view.astype(int))
    return views[0], views[1]


@pytest.mark.parametrize("image", IMAGES)
def test_flips_blends_and_luma_are_bit_equal(image: str) -> None:
    """The crop has the view's size, so that the resize changes nothing."""
    for step in EXACT:
        reference, portable = both(IMAGES[image], (step,))
        assert np.array_equal(portable, reference), step


def test_chains_of_exact_steps_stay_bit_equal() -> None:
    generator = np.random.default_rng(1)
    for _ in range(30):
        steps = tuple(EXACT[i] for i in generator.integers(0, len(EXACT), 5))
        reference, portable = both(PHOTOGRAPH, steps)
        assert np.array_equal(portable, reference), steps


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("shift", HUES)
def test_hue_is_nearly_always_equal(image: str, shift: float) -> None:
    reference, portable = both(IMAGES[image], (("hue", shift),))
    assert (reference == portable).mean() >= 0.9995
    # One 255th of the circle moves a channel by six levels.
    assert abs(reference - portable).max() <= 6


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_blur_is_within_a_level_and_nearly_always_equal(image: str, sigma: float) -> None:
    reference, portable = both(IMAGES[image], (("gaussian_blur", sigma),))
    assert abs(reference - portable).max() <= 1
    assert (reference == portable).mean() > 0.98


@pytest.mark.parametrize("size", [224, 96, 33])
def test_blur_treats_channels_alike_at_every_size(size: int) -> None:
    """Large views are filtered channel by channel, small ones at once."""
    reference, portable = both(NOISE, (("gaussian_blur", 1.7),), (0, 0, size, size), size)
    assert (reference == portable).mean(axis=(1, 2)).min() > 0.99


def test_the_passes_of_the_box_have_the_variance() -> None:
    for sigma in SIGMAS:
        box = gaussian_box(sigma)
        places = np.arange(len(box)) - len(box) // 2
        assert box.sum() == pytest.approx(1)
        assert 3 * (box * places**2).sum() == pytest.approx(sigma**2, rel=1e-9)
        assert np.all(box[1:-1] == box[1]) and 0 <= box[0] == box[-1] < box[1]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("box", "size"),
    [
        ((0, 0, 320, 300), 224),
        ((30, 20, 180, 200), 96),
        ((7, 9, 57, 43), 96),  # enlarged
        ((0, 0, 320, 300), 9),  # 36 pixels become one
        ((5, 5, 6, 6), 24),
        ((0, 0, 24, 300), 24),
    ],
)
def test_resizing_is_within_one_level(box: Box, size: int, interpolation: Interpolation) -> None:
    for image in (PHOTOGRAPH, NOISE):
        reference, portable = both(image, (), box, size, interpolation)
        assert abs(reference - portable).max() <= 1
        assert abs((reference - portable).mean()) < 0.02


def test_pixels_outside_the_box_do_not_leak_in() -> None:
    image = np.zeros((60, 60, 3), np.uint8)
    image[20:40, 20:40] = 200
    _, portable = both(image, (), (20, 20, 40, 40), 8)
    assert np.all(portable == 200)


def test_whole_pipelines_are_close_for_every_view() -> None:
    """Crops, flips, jitter, grayscale and blur together, with the parameters of the default."""
    plans = MultiCrop(MultiCrop.Config(backend="reference")).plan(512, 512, SampleKey(0, 0, 5))
    assert sum(len(plan.steps) for plan in plans) > 10
    views = [[np.empty((3, p.spec.size, p.spec.size), np.uint8) for p in plans] for _ in range(2)]
    Reference()(PHOTOGRAPH, plans, views[0])
    Portable()(PHOTOGRAPH, plans, views[1])
    for plan, reference, portable in zip(plans, *views, strict=True):
        difference = abs(reference.astype(int) - portable)
        assert difference.mean() < 0.1, plan
        assert (difference > 2).mean() < 0.001, plan


def test_a_view_depends_on_no_other_view_and_the_image_is_left_alone() -> None:
    """Memory is shared by the views of an image; nothing may pass from one to the next."""
    image = NOISE.copy()
    image.flags.writeable = False
    step_sets: list[Steps] = [(("hue", 0.1), ("contrast", 1.5)), (("gaussian_blur", 1.0),), ()]
    plans = [
        ViewPlan(ViewSpec(size, "global"), (3, 4, 203, 154), "bilinear", steps)
        for size in (64, 32, 48)
        for steps in step_sets
    ]
    together = [np.empty((3, p.spec.size, p.spec.size), np.uint8) for p in plans]
    Portable()(image, plans, together)
    for plan, view in zip(plans, together, strict=True):
        alone = np.empty_like(view)
        Portable()(image, [plan], [alone])
        assert np.array_equal(view, alone)
    assert np.array_equal(image, NOISE)


def test_every_step_is_known() -> None:
    numbers = {"hue": 0.1, "gaussian_blur": 1.0, "solarize": 128.0}
    for name in STEPS:
        reference, portable = both(PHOTOGRAPH, ((name, numbers.get(name, 1.5)),))
        assert abs(reference - portable).max() <= 1, name
        assert not np.array_equal(portable, both(PHOTOGRAPH, ())[1]), name
