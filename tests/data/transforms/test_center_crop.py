from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop as TorchvisionCenterCrop
from torchvision.transforms import Compose, InterpolationMode, Resize

from unlabeled.config.check import build_config
from unlabeled.data.randomness import SampleKey
from unlabeled.data.transforms.center_crop import CenterCrop
from unlabeled.errors import ConfigError


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("size", "resize"), [(24, 32), (25, 32), (32, 32), (28, None)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_equal_to_torchvision_bit_for_bit(
    size: int, resize: int | None, interpolation: str
) -> None:
    config = {"size": size, "resize": resize, "interpolation": interpolation}
    ours = CenterCrop(build_config(CenterCrop.Config, config))
    theirs = Compose(
        [
            Resize(resize or size, interpolation=InterpolationMode(interpolation)),
            TorchvisionCenterCrop(size),
        ]
    )
    for height, width in ((50, 71), (71, 50), (33, 100), (32, 32), (20, 31), (32, 47), (28, 28)):
        expected = np.asarray(theirs(Image.fromarray(image(height, width)))).transpose(2, 0, 1)
        (view,) = ours(image(height, width), SampleKey(0, 0, 0))
        assert np.array_equal(view, expected), (height, width)


def test_without_resizing_an_image_of_the_right_size_stays_as_it_is() -> None:
    pipeline = CenterCrop(CenterCrop.Config(size=8, resize=None))
    (view,) = pipeline(image(8, 8), SampleKey(0, 0, 0))
    assert np.array_equal(view, image(8, 8).transpose(2, 0, 1))


def test_nothing_is_random() -> None:
    pipeline = CenterCrop(CenterCrop.Config(size=8, resize=10))
    views = [pipeline(image(20, 30), SampleKey(0, 0, sample))[0] for sample in range(3)]
    assert np.array_equal(views[0], views[1]) and np.array_equal(views[0], views[2])
    assert [(view.size, view.role) for view in pipeline.views] == [(8, "global")]


def test_a_crop_larger_than_the_resized_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="resize: must be at least size=224 or null, got 128"):
        build_config(CenterCrop.Config, {"resize": 128})
