from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize

from unlabeled.config.check import build_config
from unlabeled.data.randomness import SampleKey
from unlabeled.data.transforms.shifted_crop import ShiftedCrop
from unlabeled.errors import ConfigError

PLACES = 4  # of a window of 13 in a square of 16, along each side


def windows(height: int, width: int) -> tuple[np.ndarray, dict[bytes, tuple[int, int, bool]]]:
    """An image, and every window that its central square of 16 px has, mirrored or not."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    square = Compose([Resize(16), CenterCrop(16)])(Image.fromarray(image))
    pixels = np.asarray(square).transpose(2, 0, 1)
    found = {}
    for top in range(PLACES):
        for left in range(PLACES):
            window = pixels[:, top : top + 13, left : left + 13]
            found[window.tobytes()] = (top, left, False)
            found[window[:, :, ::-1].tobytes()] = (top, left, True)
    return image, found


@pytest.mark.parametrize(("height", "width"), [(40, 60), (61, 40), (16, 22), (16, 16)])
def test_windows_of_torchvision_s_central_square_all_equally_often(height: int, width: int) -> None:
    image, known = windows(height, width)
    assert len(known) == 2 * PLACES**2
    pipeline = ShiftedCrop(ShiftedCrop.Config(size=13, resize=16))
    draws = 3200
    seen = dict.fromkeys(known.values(), 0)
    for sample in range(draws):
        (view,) = pipeline(image, SampleKey(0, 0, sample))
        seen[known[view.tobytes()]] += 1
    # 100 expected of each of 32; chi-square with 31 degrees of freedom is above 75 once in 50,000.
    assert sum((count - 100) ** 2 / 100 for count in seen.values()) < 75


def test_a_view_is_a_function_of_its_key_and_the_chance_to_be_mirrored() -> None:
    image, known = windows(40, 60)
    for chance in (0.0, 1.0):
        pipeline = ShiftedCrop(ShiftedCrop.Config(size=13, resize=16, flip_p=chance))
        for sample in range(20):
            (one,), (again,) = (pipeline(image, SampleKey(3, 1, sample)) for _ in range(2))
            assert np.array_equal(one, again) and known[one.tobytes()][2] == bool(chance)
    assert [(view.size, view.role) for view in pipeline.views] == [(13, "global")]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 0}, "size: must be 1 or more, got 0"),
        ({"size": 300}, "resize: must be at least size=300, got 256"),
        ({"flip_p": 2.0}, "flip_p: must"),
    ],
)
def test_impossible_values_are_named(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(ShiftedCrop.Config, fields)
