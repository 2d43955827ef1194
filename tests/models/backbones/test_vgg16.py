from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from unlabeled.config.check import build_config
from unlabeled.errors import ConfigError
from unlabeled.models.backbones.vgg16 import VGG16
from unlabeled.models.sobel import Sobel


def vgg16(**fields: Any) -> VGG16:
    return VGG16(build_config(VGG16.Config, fields))


def test_convolutions_are_torchvision_s_by_name_and_shape() -> None:
    with torch.device("meta"):
        ours, theirs = vgg16(), torchvision.models.vgg16_bn()
    expected = {
        name.replace("classifier.", "fully_connected."): tensor.shape
        for name, tensor in theirs.state_dict().items()
        if not name.startswith("classifier.6.")
    }
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == expected
    assert ours.feature_dim == 4096
    assert sum(p.numel() for p in ours.parameters()) == 134_268_992


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True])
def test_maps_are_torchvision_s_with_the_same_weights(train: bool) -> None:
    ours = vgg16(hidden_dim=0, grid=1).train(train)
    theirs = torchvision.models.vgg.make_layers(
        torchvision.models.vgg.cfgs["D"], batch_norm=True
    ).train(train)
    theirs.load_state_dict(ours.features.state_dict())
    images = torch.randn(2, 3, 64, 32)
    expected = theirs(images)
    assert torch.equal(ours.feature_map(images), expected)


def test_features_are_the_official_classifier_s_before_its_last_activation() -> None:
    model = vgg16(width=0.0625, hidden_dim=12, sobel=True).eval()
    first, second = (m for m in model.fully_connected if isinstance(m, nn.Linear))
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        maps = model.features(Sobel()(images))
        assert maps.shape == (2, 32, 7, 7)
        torch.testing.assert_close(model(images), second(first(maps.flatten(1)).relu()))


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"width": 0.0625, "hidden_dim": 8}, (32, 32)),
        ({"width": 0.0625, "hidden_dim": 8}, (96, 47)),
        ({"width": 0.0625, "hidden_dim": 8, "stages": 4, "grid": 1}, (28, 16)),
        ({"width": 0.0625, "hidden_dim": 0, "stages": 2, "grid": 3}, (16, 16)),
    ],
)
def test_features_of_any_image_size_have_one_length(
    fields: dict[str, Any], size: tuple[int, int]
) -> None:
    model = vgg16(**fields)
    features = model(torch.randn(2, 3, *size))
    assert features.shape == (2, model.feature_dim) and features.isfinite().all()


def test_images_that_pooling_leaves_nothing_of_are_refused() -> None:
    with pytest.raises(ConfigError, match="takes 32 px at least"):
        vgg16(width=0.0625, hidden_dim=8)(torch.randn(1, 3, 31, 40))


def test_impossible_fields_are_config_errors() -> None:
    with pytest.raises(ConfigError) as caught:
        vgg16(width=-1.0, dropout=-0.1)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["width", "dropout"]
