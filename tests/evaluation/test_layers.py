from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from unlabeled.config.check import build_config
from unlabeled.errors import ConfigError
from unlabeled.evaluation.benchmarks.linear_layers import LinearLayers, vissl_layers
from unlabeled.evaluation.layers import Layer, Taps
from unlabeled.evaluation.subject import _TorchvisionBackbone
from unlabeled.models.backbones.resnet import ResNet

CPU, META = torch.device("cpu"), torch.device("meta")
CONFIGS = Path(__file__).parents[2] / "configs" / "benchmark"


class Net(nn.Module):
    """Two convolutions; what follows each works in place."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.act = nn.ReLU(inplace=True)
        self.stage = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, bias=False), nn.ReLU(inplace=True))
        self.unused = nn.Conv2d(4, 4, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        return self.stage(self.act(self.stem(images))).mean(dim=(2, 3))


def layer(module: str, pool: Any = 1) -> Layer:
    return Layer(module=module, pool=pool, batch_norm=True)


def images(size: int = 12) -> Tensor:
    return torch.randn(5, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_features_are_the_pooled_outputs_of_the_layers_as_they_were() -> None:
    net = Net().eval()
    layers = {  # in another order than they run
        "deep": layer("stage.0", (2, 2, 0)),
        "before": layer("stem", (6, 2, 1)),
        "last": layer("stage", 1),
        "after": layer("act", 3),
        "small": layer("stage", 9),
    }
    taps = Taps(net, layers, size=12, device=CPU)
    with torch.no_grad():
        features = taps(images())
        stem = net.stem(images())  # negative where the activation made zeros of it, in place
        deep = net.stage[0](stem.relu())
        expected = {
            "before": nn.AvgPool2d(6, stride=2, padding=1)(stem),
            "after": nn.AdaptiveAvgPool2d(3)(stem.relu()),
            "deep": nn.AvgPool2d(2)(deep),
            "last": deep.relu().mean(dim=(2, 3), keepdim=True),
            "small": deep.relu(),  # 5 x 5
        }
    assert features.shape == (5, taps.feature_dim)
    assert list(taps.split(features)) == list(layers)
    for key, maps in taps.split(features).items():
        torch.testing.assert_close(maps, expected[key])
        assert tuple(maps.shape[1:]) == taps.shapes[key]
    assert float(taps.split(features)["before"].min()) < 0
    joined = torch.cat([expected[key].flatten(1) for key in layers], dim=1)
    torch.testing.assert_close(features, joined)


def test_the_backbone_is_left_as_it_was() -> None:
    net = Net().eval()
    before = [parameter.clone() for parameter in net.parameters()]
    taps = Taps(net, {"stem": layer("stem")}, size=12, device=CPU)
    with torch.no_grad():
        alone = net(images())
        taps(images())
    assert not any(module._forward_hooks for module in net.modules())
    assert all(map(torch.equal, before, net.parameters()))
    assert net(images()).equal(alone)


def test_pooling_is_a_mean_by_hand() -> None:
    taps = Taps(nn.Sequential(nn.Identity()), {"all": layer("0", (3, 2, 1))}, size=6, device=CPU)
    image = images(6)
    maps = taps.split(taps(image))["all"]
    padded = np.pad(image.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    for row in range(3):
        for column in range(3):
            window = padded[:, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            mean = window.sum(axis=(2, 3)) / 9  # zeros of the margin count
            np.testing.assert_allclose(maps[:, :, row, column].numpy(), mean, atol=1e-6)


@pytest.mark.parametrize("wrapped", [False, True])
def test_vissls_layers_of_a_resnet50_have_vissls_sizes(wrapped: bool) -> None:
    with torch.device(META):
        net: nn.Module = ResNet(ResNet.Config(depth=50))
    if wrapped:  # as torchvision's own weights are held: names are model.layer1 and so on
        net = _TorchvisionBackbone(net, 2048)
    layers = {key: found for key, found in vissl_layers().items() if found is not None}
    taps = Taps(net.eval(), layers, size=224, device=META)
    assert taps.shapes == {
        "conv1": (64, 12, 12),  # 9216, as for res2 and res4
        "res2": (256, 6, 6),
        "res3": (512, 4, 4),  # 8192, as for res5
        "res4": (1024, 3, 3),
        "res5": (2048, 2, 2),
        "res5avg_bn": (2048, 1, 1),
        "res5avg": (2048, 1, 1),
    }


@pytest.mark.parametrize("stages", [1, 4])
def test_the_layers_for_small_pictures_fit_small_networks(stages: Any) -> None:
    data = yaml.safe_load((CONFIGS / "linear_layers_small.yaml").read_text())
    del data["name"]
    layers = build_config(LinearLayers.Config, data).layers
    with torch.device(META):
        net = ResNet(ResNet.Config(depth=18, stem="small", stages=stages))
    chosen = {key: found for key, found in layers.items() if found is not None}
    shapes = Taps(net.eval(), chosen, size=32, device=META).shapes
    assert set(shapes) == set(vissl_layers())
    assert shapes["conv1"] == (64, 4, 4) and shapes["res5avg"] == (net.feature_dim, 1, 1)


class Odd(nn.Module):
    """Outputs that are no maps, and names that occur twice."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential()
        self.left.add_module("twin", nn.Identity())
        self.right = nn.Sequential()
        self.right.add_module("twin", nn.Identity())
        self.tokens = nn.Flatten(2)

    def forward(self, images: Tensor) -> Tensor:
        return self.tokens(self.right(self.left(images)))


@pytest.mark.parametrize(
    ("net", "chosen", "message"),
    [
        (Net(), layer("stemm"), r"layers\.mine\.module: .*no module 'stemm'.*Did you mean 'stem'"),
        (Net(), layer("unused"), r"layers\.mine\.module: 'unused' is never run"),
        (Net(), layer("stem", (16, 8, 0)), r"layers\.mine\.pool: a window of 16 .* 12 x 12"),
        (Odd(), layer("twin"), "'twin' may be any of left.twin, right.twin; say which"),
        (Odd(), layer("tokens"), r"output of 'tokens' is no map \[B, C, h, w\], but \[1, 3, 144\]"),
    ],
)
def test_layers_that_cannot_be_read_are_named(net: nn.Module, chosen: Layer, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Taps(net.eval(), {"mine": chosen}, size=12, device=CPU)
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("pool", [0, [0, 1, 0], [4, 0, 0], [4, 1, 3], [4, 1, -1]])
def test_impossible_pooling_is_named(pool: Any) -> None:
    data = {"module": "stem", "pool": pool, "batch_norm": True}
    with pytest.raises(ConfigError, match=r"^pool: .*got"):
        build_config(Layer, data)
