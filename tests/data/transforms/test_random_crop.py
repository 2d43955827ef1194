from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as F

from unlabeled.config.check import build_config
from unlabeled.data.pixels.geometry import random_crop_box
from unlabeled.data.randomness import SampleKey, uniforms
from unlabeled.data.transforms.random_crop import RandomCrop
from unlabeled.errors import ConfigError

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 60, 3), dtype=np.uint8)


def test_it_is_torchvisions_crop_and_flip() -> None:
    pipeline = RandomCrop(RandomCrop.Config(size=20))
    flips = 0
    for sample in range(40):
        u = uniforms(SampleKey(0, 0, sample), 0, 23)
        left, top, right, bottom = random_crop_box(u[:22], 60, 48, (0.08, 1.0), (3 / 4, 4 / 3))
        expected = F.resized_crop(
            Image.fromarray(IMAGE), top, left, bottom - top, right - left, [20, 20]
        )
        if u[22] < 0.5:
            expected, flips = F.hflip(expected), flips + 1
        (view,) = pipeline(IMAGE, SampleKey(0, 0, sample))
        assert np.array_equal(view, np.asarray(expected).transpose(2, 0, 1))
    assert 0 < flips < 40


def test_one_view_as_declared() -> None:
    pipeline = RandomCrop(RandomCrop.Config(size=20, flip_p=0.0))
    assert [(view.size, view.role) for view in pipeline.views] == [(20, "global")]


@pytest.mark.parametrize(
    ("field", "value"), [("size", 0), ("scale", [0.0, 1.0]), ("ratio", [2.0, 1.0]), ("flip_p", 2.0)]
)
def test_impossible_values_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: must"):
        build_config(RandomCrop.Config, {field: value})
