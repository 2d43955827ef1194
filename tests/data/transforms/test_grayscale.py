from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as F

from unlabeled.config.check import build_config
from unlabeled.data.randomness import SampleKey, uniforms
from unlabeled.data.transforms.grayscale import Grayscale
from unlabeled.errors import ConfigError

DRAWS = 10_000


def image() -> Image.Image:
    array = np.random.default_rng(0).integers(0, 256, (31, 44, 3), dtype=np.uint8)
    return Image.fromarray(array)


def test_pixels_are_those_of_torchvision() -> None:
    theirs = F.to_grayscale(image(), num_output_channels=3)
    ours = Grayscale(Grayscale.Config(p=1.0))(image(), np.array([0.999]))
    assert ours.mode == "RGB" and ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("uniform", [0.0, 0.29999, 0.3, 0.9])
def test_it_acts_below_p(uniform: float) -> None:
    original = image()
    acted = Grayscale(Grayscale.Config(p=0.3))(original, np.array([uniform])) is not original
    assert acted == (uniform < 0.3)


def test_it_acts_on_a_share_p_of_the_samples() -> None:
    operation = Grayscale(Grayscale.Config(p=0.3))
    keys = (SampleKey(0, 0, sample) for sample in range(DRAWS))
    acted = sum(len(operation.steps(uniforms(key, 0, operation.draws))) for key in keys)
    assert abs(acted / DRAWS - 0.3) < 4 * np.sqrt(0.3 * 0.7 / DRAWS)


def test_p_is_a_probability() -> None:
    with pytest.raises(ConfigError, match=r"p: must be a probability in \[0, 1\], got -0.1"):
        build_config(Grayscale.Config, {"p": -0.1})
