"""Changes of test views, against scikit-image, PIL and closed forms."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import hsv2rgb, rgb2hsv
from skimage.filters import gaussian
from torchvision.transforms.v2.functional import resize

from tests_support.probes import Blobs, Whole
from unlabeled.data.randomness import SampleKey
from unlabeled.data.sources.photo_patches import PhotoPatches
from unlabeled.evaluation.corruptions import (
    BLUR,
    BRIGHTNESS,
    CONTRAST,
    CORRUPTIONS,
    JPEG,
    NOISE,
    Changed,
    corruption,
    resolution,
    rotation,
)

ONE = PhotoPatches.Config(image_size=64, train_per_picture=1, test_per_picture=1)
PHOTOGRAPHS = PhotoPatches(ONE, split="train").images
GENERATOR = np.random.default_rng(0)


def corrupted(name: str, severity: int, image: np.ndarray) -> np.ndarray:
    found = corruption(name, severity)(image, np.random.default_rng(7))
    assert found.shape == image.shape and found.dtype == np.uint8
    return found


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_blur_is_that_of_scikit_image(severity: int) -> None:
    for image in PHOTOGRAPHS[::5]:
        expected = gaussian(image / 255, sigma=BLUR[severity - 1], channel_axis=2) * 255
        assert np.abs(corrupted("gaussian_blur", severity, image) - expected).max() <= 1 + 1e-6


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_brightness_raises_the_value_of_hsv(severity: int) -> None:
    black = np.zeros((4, 4, 3), dtype=np.uint8)
    for image in (*PHOTOGRAPHS[::5], black):
        hsv = rgb2hsv(image / 255)
        hsv[:, :, 2] = np.clip(hsv[:, :, 2] + BRIGHTNESS[severity - 1], 0, 1)
        found = corrupted("brightness", severity, image)
        assert np.abs(found - hsv2rgb(hsv) * 255).max() <= 1 + 1e-6


@pytest.mark.parametrize("severity", [1, 5])
def test_contrast_scales_the_distance_from_the_mean(severity: int) -> None:
    factor = CONTRAST[severity - 1]
    for image in PHOTOGRAPHS[::5]:
        found = corrupted("contrast", severity, image).astype(float)
        before = image.reshape(-1, 3).astype(float)
        expected = (before - before.mean(axis=0)) * factor + before.mean(axis=0)
        assert np.abs(found.reshape(-1, 3) - expected).max() <= 1 + 1e-6


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_noise_has_its_standard_deviation_and_its_draw(severity: int) -> None:
    grey = np.full((224, 224, 3), 128, dtype=np.uint8)
    found = corrupted("gaussian_noise", severity, grey).astype(float)
    deviation = NOISE[severity - 1]
    if deviation < 0.2:  # stronger noise is clipped
        assert found.std() == pytest.approx(255 * deviation, rel=0.02)
        assert found.mean() == pytest.approx(127.5, abs=0.6)  # cut to whole numbers
    assert np.unique(found).size > 50
    other = corruption("gaussian_noise", severity)(grey, np.random.default_rng(8))
    assert not np.array_equal(found, other)


def test_jpeg_is_pils_of_the_stated_quality() -> None:
    image = PHOTOGRAPHS[0]
    losses = []
    for severity, quality in enumerate(JPEG, start=1):
        file = BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        np.testing.assert_array_equal(corrupted("jpeg", severity, image), Image.open(file))
        losses.append(
            float(np.abs(corrupted("jpeg", severity, image) - image.astype(float)).mean())
        )
    assert losses == sorted(losses) and losses[0] > 0.5


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severities_grow(name: str) -> None:
    for image in PHOTOGRAPHS[:6]:
        distances = [
            float(np.square(corrupted(name, severity, image) - image.astype(float)).mean())
            for severity in range(1, 6)
        ]
        assert distances[0] > 0 and distances == sorted(distances)


def test_quarter_turns_move_pixels_and_change_none() -> None:
    image = PHOTOGRAPHS[0]
    for degrees, turns in ((0, 0), (90, 1), (180, 2), (270, 3), (-90, 3)):
        np.testing.assert_array_equal(rotation(degrees)(image, GENERATOR), np.rot90(image, turns))
    slanted = rotation(45)(image, GENERATOR)
    assert not slanted[0, 0].any() and slanted[32, 32].any()  # black corners


@pytest.mark.parametrize("share", [1.0, 0.5, 0.25, 0.001])
def test_resolution_is_an_antialiased_resize_down_and_up(share: float) -> None:
    for image in PHOTOGRAPHS[::5]:
        planes = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
        side = max(1, round(64 * share))
        for size in (side, 64):
            planes = resize(planes, [size, size], antialias=True)
        expected = planes[0].permute(1, 2, 0).numpy().astype(int)
        assert np.abs(resolution(share)(image, GENERATOR) - expected).max() <= 2


def test_a_changed_pipeline_is_a_function_of_seed_and_sample() -> None:
    image = Blobs(2, 30).draw(1, 0).images[0]
    change = corruption("gaussian_noise", 3)
    views = {
        (seed, sample): Changed(Whole(), change, seed)(image, SampleKey(0, 0, sample))[0]
        for seed in (0, 1)
        for sample in (0, 1)
    }
    again = Changed(Whole(), change, 1)(image, SampleKey(0, 0, 0))[0]
    assert np.array_equal(again, views[1, 0])
    assert len({view.tobytes() for view in views.values()}) == 4
    turned = Changed(Whole(), rotation(90), 0)(image, SampleKey(0, 0, 0))[0]
    np.testing.assert_array_equal(turned, np.rot90(image).transpose(2, 0, 1))
