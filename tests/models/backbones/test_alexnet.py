from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlabeled.config.check import build_config
from unlabeled.errors import ConfigError
from unlabeled.models.backbones.alexnet import AlexNet
from unlabeled.models.sobel import Sobel

NARROW = {"width": 0.125, "hidden_dim": 24}


def alexnet(**fields: Any) -> AlexNet:
    return AlexNet(build_config(AlexNet.Config, fields))


@pytest.mark.parametrize(
    ("fields", "parameters"),
    # (k k in + 1 + 2) out for a convolution with bias and batch norm, (in + 1) out for a linear
    # layer: 35,136 (23,520 with two slopes) + 615,168 + 885,888 + 1,328,256 + 885,504
    # + 9216 x 4096 + 4096 + 4097 x 4096.
    [({}, 58_284_096), ({"sobel": True}, 58_272_480), ({"hidden_dim": 0}, 3_749_952)],
)
def test_sizes_are_those_of_the_official_network(fields: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        model = alexnet(**fields)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.feature_dim == (9216 if "hidden_dim" in fields else 4096)


def test_maps_at_224_px_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        model = alexnet()
        shapes: list[tuple[int, ...]] = []
        for place in (2, 6, 10, 13, 16):
            model.features[place].register_forward_hook(lambda m, i, o: shapes.append(o.shape[1:]))
        assert model.feature_map(torch.empty(1, 3, 224, 224)).shape[1:] == (256, 6, 6)
    assert shapes == [(96, 55, 55), (256, 27, 27), (384, 13, 13), (384, 13, 13), (256, 13, 13)]


def by_hand(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """The network in evaluation mode, layer by layer from the official names."""
    maps = images
    for place, (stride, padding) in zip(
        (0, 4, 8, 11, 14), ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1)), strict=True
    ):
        weight, bias = state[f"features.{place}.weight"], state[f"features.{place}.bias"]
        maps = F.conv2d(maps, weight, bias, stride=stride, padding=padding)
        scale, shift, mean, variance = (
            state[f"features.{place + 1}.{name}"][:, None, None]
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        maps = ((maps - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)
        if place in (0, 4, 14):
            maps = F.max_pool2d(maps, 3, 2)
    rows = maps.flatten(1)
    rows = (rows @ state["fully_connected.1.weight"].t() + state["fully_connected.1.bias"]).relu()
    return rows @ state["fully_connected.4.weight"].t() + state["fully_connected.4.bias"]


@pytest.mark.parametrize("sobel", [False, True])
def test_features_are_those_of_the_layers_one_by_one(sobel: bool) -> None:
    model = alexnet(sobel=sobel, **NARROW).eval()
    state = {name: torch.rand_like(t.float()) * 0.1 for name, t in model.state_dict().items()}
    model.load_state_dict(state)
    images = torch.randn(2, 3, 224, 224)
    seen = Sobel()(images) if sobel else images
    with torch.no_grad():
        torch.testing.assert_close(model(images), by_hand(state, seen), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (63, 63)),
        ({}, (224, 160)),
        ({"stem": "small", "grid": 2}, (28, 28)),
        ({"stem": "small", "grid": 2, "sobel": True}, (33, 15)),
        ({"stem": "small", "grid": 3, "hidden_dim": 0}, (32, 32)),
    ],
)
def test_features_of_any_image_size_have_one_length(
    fields: dict[str, Any], size: tuple[int, int]
) -> None:
    model = alexnet(**{**NARROW, **fields})
    features = model(torch.randn(2, 3, *size))
    assert features.shape == (2, model.feature_dim) and features.isfinite().all()


def test_images_that_pooling_leaves_nothing_of_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"62 x 80 px leave nothing .* takes 63 px at least"):
        alexnet(**NARROW)(torch.randn(1, 3, 62, 80))
    with pytest.raises(ConfigError, match="takes 15 px at least"):
        alexnet(stem="small", **NARROW)(torch.randn(1, 3, 14, 14))


def test_weights_start_as_in_the_official_code() -> None:
    model = alexnet(width=0.25, hidden_dim=256)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_out = module.weight[0, 0].numel() * len(module.weight)
            deviation = 0.01 if isinstance(module, nn.Linear) else (2 / fan_out) ** 0.5
            # Standard error of a deviation over n draws: 1 / sqrt(2 n), relatively; 5 of them.
            tolerance = 5 / (2 * module.weight.numel()) ** 0.5
            assert module.weight.std().item() == pytest.approx(deviation, rel=tolerance)
            assert module.bias is not None and module.bias.eq(0).all()
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.eq(1).all() and module.bias.eq(0).all()


def test_impossible_fields_are_config_errors() -> None:
    with pytest.raises(ConfigError) as caught:
        alexnet(width=0.3, grid=0, hidden_dim=-1, dropout=1.0)
    named = [problem.split(":")[0] for problem in caught.value.problems]
    assert named == ["width", "grid", "hidden_dim", "dropout"]
