from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import Compose, InterpolationMode, Resize

from unlabeled.config.check import build_config
from unlabeled.data.randomness import SampleKey
from unlabeled.data.transforms.squash import Squash
from unlabeled.errors import ConfigError


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("size", "resize"), [(24, 32), (40, 32), (28, None)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_equal_to_torchvision_bit_for_bit(
    size: int, resize: int | None, interpolation: str
) -> None:
    config = {"size": size, "resize": resize, "interpolation": interpolation}
    ours = Squash(build_config(Squash.Config, config))
    sizes = [(size, size)] if resize is None else [resize, (size, size)]
    theirs = Compose([Resize(s, interpolation=InterpolationMode(interpolation)) for s in sizes])
    for height, width in ((50, 71), (71, 50), (33, 100), (32, 32), (20, 31), (32, 47)):
        expected = np.asarray(theirs(Image.fromarray(image(height, width)))).transpose(2, 0, 1)
        (view,) = ours(image(height, width), SampleKey(0, 0, 0))
        assert np.array_equal(view, expected), (height, width)
    assert [(view.size, view.role) for view in ours.views] == [(size, "global")]


def test_nothing_is_cut_off() -> None:
    picture = np.zeros((10, 40, 3), dtype=np.uint8)
    picture[:, -4:] = 255
    (view,) = Squash(Squash.Config(size=10, resize=None))(picture, SampleKey(0, 0, 0))
    assert view[:, :, -1].min() > 200 and view[:, :, :8].max() < 30


@pytest.mark.parametrize("field", ["size", "resize"])
def test_impossible_sizes_are_named(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field}: must be 1 or more, got 0"):
        build_config(Squash.Config, {field: 0})
