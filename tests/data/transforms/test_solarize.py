from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as F

from unlabeled.config.check import build_config
from unlabeled.data.randomness import SampleKey, uniforms
from unlabeled.data.transforms.solarize import Solarize
from unlabeled.errors import ConfigError

DRAWS = 10_000


def image() -> Image.Image:
    return Image.fromarray(np.arange(768, dtype=np.int64).astype(np.uint8).reshape(16, 16, 3))


@pytest.mark.parametrize("threshold", [0, 1, 128, 255, 256])
def test_pixels_are_those_of_torchvision(threshold: int) -> None:
    operation = Solarize(Solarize.Config(p=1.0, threshold=threshold))
    theirs = F.solarize(image(), threshold)
    assert operation(image(), np.array([0.999])).tobytes() == theirs.tobytes()


@pytest.mark.parametrize("uniform", [0.0, 0.19999, 0.2, 0.9])
def test_it_acts_below_p(uniform: float) -> None:
    original = image()
    acted = Solarize(Solarize.Config(p=0.2))(original, np.array([uniform])) is not original
    assert acted == (uniform < 0.2)


def test_it_acts_on_a_share_p_of_the_samples() -> None:
    operation = Solarize(Solarize.Config(p=0.3))
    keys = (SampleKey(0, 0, sample) for sample in range(DRAWS))
    acted = sum(len(operation.steps(uniforms(key, 0, operation.draws))) for key in keys)
    assert abs(acted / DRAWS - 0.3) < 4 * np.sqrt(0.3 * 0.7 / DRAWS)


def test_a_threshold_beyond_the_grey_levels_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"threshold: must lie in 0\.\.256"):
        build_config(Solarize.Config, {"threshold": 300})
