from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from unlabeled.config.check import build_config
from unlabeled.data.randomness import uniforms
from unlabeled.data.transforms.base import SampleKey
from unlabeled.data.transforms.gaussian_blur import GaussianBlur
from unlabeled.errors import ConfigError


def test_the_spread_of_a_point_is_sigma() -> None:
    point = np.zeros((41, 41, 3), dtype=np.uint8)
    point[20, 20] = 255
    big = Image.fromarray(np.kron(point, np.ones((3, 3, 1), dtype=np.uint8)))  # a 3 x 3 block
    operation = GaussianBlur(GaussianBlur.Config(p=1.0))
    for sigma in (1.0, 1.5, 2.0):
        blurred = np.asarray(operation.apply(big, sigma), dtype=np.float64)[:, :, 0]
        place = np.arange(len(blurred)) - 61
        variance = (blurred.sum(axis=0) * place**2).sum() / blurred.sum()
        # The block's own variance, (9 - 1) / 12, adds to the kernel's; uint8 cuts the tails.
        assert variance == pytest.approx(sigma**2 + 8 / 12, rel=0.08)


def test_a_plain_image_stays_as_it_is() -> None:
    plain = Image.new("RGB", (9, 9), (3, 200, 77))
    assert GaussianBlur(GaussianBlur.Config(p=1.0)).apply(plain, 2.0).tobytes() == plain.tobytes()


def test_sigma_is_uniform_and_p_is_kept() -> None:
    operation = GaussianBlur(GaussianBlur.Config(p=0.5, min_sigma=0.1, max_sigma=2.0))
    drawn = [operation.parameters(uniforms(SampleKey(0, 0, i), 0, 2)) for i in range(5000)]
    sigmas = np.array([sigma for sigma in drawn if sigma is not None])
    assert abs(len(sigmas) / 5000 - 0.5) < 4 * np.sqrt(0.25 / 5000)
    counts = np.histogram(sigmas, bins=10, range=(0.1, 2.0))[0]
    assert counts.sum() == len(sigmas)
    expected = len(sigmas) / 10
    assert ((counts - expected) ** 2 / expected).sum() < 27.9  # 99.9 %, 9 degrees of freedom


def test_an_empty_interval_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"min_sigma: must lie between 0 and max_sigma=2\.0, got 3"
    ):
        build_config(GaussianBlur.Config, {"min_sigma": 3.0})
