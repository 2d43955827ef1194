from __future__ import annotations

import pytest
import torch

from unlabeled.config.check import build_config
from unlabeled.errors import ConfigError
from unlabeled.models.backbones.raw_pixels import RawPixels


def test_features_are_the_pixels_and_nothing_is_learned() -> None:
    model = RawPixels(RawPixels.Config(image_size=5))
    images = torch.randn(4, 3, 5, 5)
    features = model(images)
    assert features.shape == (4, model.feature_dim)
    assert torch.equal(features.reshape(4, 3, 5, 5), images)
    assert not list(model.parameters())


@pytest.mark.parametrize("shape", [(2, 3, 6, 6), (2, 3, 25, 1), (2, 1, 5, 5)])
def test_images_of_another_size_are_a_config_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"backbone\.image_size: built for images \(3, 5, 5\)"):
        RawPixels(RawPixels.Config(image_size=5))(torch.zeros(shape))


def test_an_empty_image_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="image_size: must be 1 or more, got 0"):
        build_config(RawPixels.Config, {"image_size": 0})
