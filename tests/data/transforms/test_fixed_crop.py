from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import Compose, Resize, TenCrop

from unlabeled.config.check import build_config
from unlabeled.data.randomness import SampleKey
from unlabeled.data.transforms.fixed_crop import FixedCrop
from unlabeled.errors import ConfigError

# In the order of torchvision's TenCrop, which mirrors the image first and cuts then.
PLACES = ("top_left", "top_right", "bottom_left", "bottom_right", "center")
OTHER_SIDE = {"top_left": "top_right", "top_right": "top_left", "center": "center"}
OTHER_SIDE |= {"bottom_left": "bottom_right", "bottom_right": "bottom_left"}


@pytest.mark.parametrize(("height", "width"), [(50, 70), (71, 50), (32, 32), (20, 30), (32, 46)])
def test_all_of_them_are_torchvision_s_ten_crops(height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    theirs = Compose([Resize(32), TenCrop(24)])(Image.fromarray(image))
    expected = [np.asarray(crop).transpose(2, 0, 1) for crop in theirs]
    found = [
        FixedCrop(FixedCrop.Config(size=24, resize=32, place=place, mirrored=mirrored))
        for mirrored in (False, True)
        for place in (map(OTHER_SIDE.get, PLACES) if mirrored else PLACES)
    ]
    for number, (pipeline, crop) in enumerate(zip(found, expected, strict=True)):
        (view,) = pipeline(image, SampleKey(0, 0, 0))
        assert np.array_equal(view, crop), number
    assert len({view.tobytes() for view in expected}) == 10  # so that each place was told apart


def test_one_view_as_declared() -> None:
    views = FixedCrop(FixedCrop.Config(size=20, resize=20)).views
    assert [(view.size, view.role) for view in views] == [(20, "global")]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 0}, "size: must be 1 or more, got 0"),
        ({"size": 300}, "resize: must be at least size=300, got 256"),
    ],
)
def test_impossible_sizes_are_named(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(FixedCrop.Config, fields)
