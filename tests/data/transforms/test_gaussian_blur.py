from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from unlabeled.config.check import build_config
from unlabeled.data.pixels.reference import blur
from unlabeled.data.randomness import SampleKey, uniforms
from unlabeled.data.transforms.gaussian_blur import GaussianBlur
from unlabeled.errors import ConfigError

DRAWS = 10_000


def test_the_spread_of_a_point_is_sigma() -> None:
    point = np.zeros((41, 41, 3), dtype=np.uint8)
    point[20, 20] = 255
    big = Image.fromarray(np.kron(point, np.ones((3, 3, 1), dtype=np.uint8)))  # a 3 x 3 block
    for sigma in (1.0, 1.5, 2.0):
        blurred = np.asarray(blur(big, sigma), dtype=np.float64)[:, :, 0]
        place = np.arange(len(blurred)) - 61
        variance = (blurred.sum(axis=0) * place**2).sum() / blurred.sum()
        # The block's own variance, (9 - 1) / 12, adds to the kernel's; uint8 cuts the tails.
        assert variance == pytest.approx(sigma**2 + 8 / 12, rel=0.08)


def test_a_plain_image_stays_as_it_is() -> None:
    plain = Image.new("RGB", (9, 9), (3, 200, 77))
    assert blur(plain, 2.0).tobytes() == plain.tobytes()


def test_it_is_pils_gaussian_of_the_drawn_sigma() -> None:
    """As SwAV's code has it: `ImageFilter.GaussianBlur(radius=sigma)`."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    operation = GaussianBlur(GaussianBlur.Config(p=0.5, min_sigma=0.5, max_sigma=1.5))
    theirs = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(radius=0.75))
    assert operation(Image.fromarray(noise), [0.4999, 0.25]).tobytes() == theirs.tobytes()
    original = Image.fromarray(noise)
    assert operation(original, [0.5, 0.25]) is original


def test_sigma_is_uniform_and_p_is_kept() -> None:
    operation = GaussianBlur(GaussianBlur.Config(p=0.5, min_sigma=0.1, max_sigma=2.0))
    drawn = [operation.steps(uniforms(SampleKey(0, 0, i), 0, 2)) for i in range(DRAWS)]
    sigmas = np.array([number for ((name, number),) in filter(None, drawn)])  # type: ignore[misc]
    assert abs(len(sigmas) / DRAWS - 0.5) < 4 * np.sqrt(0.25 / DRAWS)
    counts = np.histogram(sigmas, bins=10, range=(0.1, 2.0))[0]
    assert counts.sum() == len(sigmas)
    expected = len(sigmas) / 10
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # 99.9 %, 9 degrees of freedom


def test_an_empty_interval_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"min_sigma: must lie between 0 and max_sigma=2\.0, got 3"
    ):
        build_config(GaussianBlur.Config, {"min_sigma": 3.0})
