"""The constants of the published protocols, as the papers and their code state them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torchvision.transforms import TenCrop

from tests_support.probes import Blobs, make_probe
from unlabeled.config.check import build_config
from unlabeled.data.randomness import SampleKey
from unlabeled.evaluation.benchmarks.linear import Linear
from unlabeled.evaluation.benchmarks.linear_layers import LinearLayers
from unlabeled.evaluation.layers import Layer, Taps
from unlabeled.models.backbones.alexnet import AlexNet
from unlabeled.models.backbones.resnet import ResNet
from unlabeled.models.backbones.vit import ViT
from unlabeled.registry import get

CONFIGS = Path(__file__).parents[3] / "configs" / "benchmark"


def preset(name: str) -> Any:
    """The typed fields of a benchmark's YAML file."""
    data = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    return build_config(get("benchmark", data.pop("name")).Config, data)


def rates(config: Linear.Config | LinearLayers.Config) -> dict[int, float]:
    """The rate by the epochs (from 0) at which it changes, rounded."""
    found: dict[int, float] = {}
    for epoch in range(config.epochs):
        rate = round(config.learning_rate(epoch), 10)
        if not found or rate != list(found.values())[-1]:
            found[epoch] = rate
    return found


def test_swav_on_imagenet() -> None:
    config = preset("linear")
    assert (config.epochs, config.batch_size, config.learning_rate(0)) == (100, 256, 0.3)
    assert (config.momentum, config.weight_decay, config.schedule) == (0.9, 1e-6, "cosine")
    assert (config.augment, config.normalize_features) == (True, "none")


def test_dino_on_imagenet() -> None:
    config = preset("linear_dino")
    assert config.learning_rate(0) == pytest.approx(1e-3 * config.batch_size / 256)
    assert config.batch_size == 8 * 128
    assert (config.epochs, config.momentum, config.weight_decay) == (100, 0.9, 0)
    assert config.learning_rate(50) == pytest.approx(config.learning_rate(0) / 2)  # cosine
    assert config.augment and "DINO" in Linear(config).protocol


@pytest.mark.parametrize(
    ("name", "features", "blocks"),
    [("linear_dino_vit_s", "cls", 4), ("linear_dino_vit_b", "cls_and_mean_patch", 1)],
)
def test_dino_on_imagenet_with_a_vit(name: str, features: str, blocks: int) -> None:
    config = preset(name)
    assert (config.features, config.last_blocks) == (features, blocks)
    assert replace(config, features="output", last_blocks=1) == preset("linear_dino")
    width = {"linear_dino_vit_s": 384, "linear_dino_vit_b": 768}[name]
    with torch.device("meta"):
        backbone = ViT(ViT.Config(width=width, depth=4, heads=6))
    blobs = Blobs(2, 5)
    probe = make_probe(blobs.draw(2, 1), blobs.draw(2, 2), encode=backbone, backbone=backbone)
    described = Linear(config).described(probe)
    assert described.feature_dim == 1536
    assert described.encode(torch.zeros(1, 3, 32, 32, device="meta")).shape == (1, 1536)


@pytest.mark.parametrize("benchmark", ["copy_detection", "video_segmentation"])
def test_dino_s_other_protocols_differ_by_their_features_alone(benchmark: str) -> None:
    plain, dino = preset(benchmark), preset(f"{benchmark}_dino")
    own = {"copy_detection": {"features": "output"}, "video_segmentation": {"layer": "layer3"}}
    assert replace(dino, **own[benchmark]) == plain
    sizes = {"copy_detection": (320, 20), "video_segmentation": (480, 5)}
    assert (dino.image_size, dino.top) == sizes[benchmark]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear_places205", (28, {0: 1e-2, 8: 1e-3, 16: 1e-4, 24: 1e-5})),
        ("linear_inat18", (84, {0: 1e-2, 24: 1e-3, 48: 1e-4, 72: 1e-5})),
    ],
)
def test_swav_transfer(name: str, expected: tuple[int, dict[int, float]]) -> None:
    config = preset(name)
    assert (config.epochs, rates(config)) == expected  # lowered three times, equally spaced
    assert (config.batch_size, config.momentum, config.weight_decay) == (256, 0.9, 1e-4)
    assert config.augment and "A.5" in Linear(config).protocol


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear_layers", (28, {0: 1e-2, 8: 1e-3, 16: 1e-4, 24: 1e-5})),
        ("linear_layers_places205", (14, {0: 1e-2, 4: 1e-3, 8: 1e-4, 12: 1e-5})),
        ("linear_layers_inat18", (84, {0: 1e-2, 24: 1e-3, 48: 1e-4, 72: 1e-5})),
    ],
)
def test_vissl(name: str, expected: tuple[int, dict[int, float]]) -> None:
    config = preset(name)
    assert (config.epochs, rates(config)) == expected
    assert (config.batch_size, config.momentum, config.nesterov) == (256, 0.9, True)
    assert (config.weight_decay, config.augment) == (5e-4, True)
    assert "VISSL" in LinearLayers(config).protocol
    pools = {key: layer.pool for key, layer in config.layers.items()}
    assert pools == {
        "conv1": (10, 10, 4),
        "res2": (16, 8, 0),
        "res3": (13, 5, 0),
        "res4": (8, 3, 0),
        "res5": (6, 1, 0),
        "res5avg_bn": 1,
        "res5avg": 1,
    }
    assert [key for key, layer in config.layers.items() if not layer.batch_norm] == ["res5avg"]


def test_deepcluster_on_imagenet() -> None:
    config = preset("linear_layers_deepcluster")
    assert (config.epochs, config.batch_size, config.learning_rate(89)) == (90, 256, 0.01)
    assert (config.momentum, config.nesterov, config.weight_decay) == (0.9, False, 1e-7)
    assert (config.schedule, config.initial) == ("inverse_root", "uniform")
    assert "eval_linear" in LinearLayers(config).protocol
    with torch.device("meta"):
        net = AlexNet(AlexNet.Config(sobel=True)).eval()
    taps = Taps(net, config.layers, size=224, device=torch.device("meta"))
    widths = {key: math.prod(shape) for key, shape in taps.shapes.items()}
    assert widths == {"conv1": 9600, "conv2": 9216, "conv3": 9600, "conv4": 9600, "conv5": 9216}
    # Behind the ReLU that follows each convolution and its norm.
    modules = list(net.features)
    for number, layer in enumerate(config.layers.values()):
        place = int(layer.module.split(".")[1])
        assert isinstance(modules[place], torch.nn.ReLU)
        before = sum(isinstance(module, torch.nn.Conv2d) for module in modules[:place])
        assert before == number + 1


def test_deepcluster_s_test_views_are_ten_crops() -> None:
    config = preset("linear_layers_deepcluster")
    views = [view.build() for view in config.test_views]
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 300, 3), np.uint8))
    expected = {np.asarray(crop).transpose(2, 0, 1).tobytes() for crop in TenCrop(224)(picture)}
    found = [view(np.asarray(picture), SampleKey(0, 0, 0))[0].tobytes() for view in views]
    assert set(found) == expected and len(found) == 10
    crop = config.train_transform.fields
    assert (crop.resize, crop.size, crop.flip_p) == (256, 224, 0.5)


def test_swav_with_batch_norm() -> None:
    """All but the layer is that of the classifier which the paper's numbers are of."""
    config, paper = preset("linear_avgpool_bn"), preset("linear")
    assert rates(config) == rates(paper)
    for name in ("epochs", "batch_size", "momentum", "weight_decay", "augment"):
        assert getattr(config, name) == getattr(paper, name)
    assert (config.nesterov, config.initial) == (False, "normal")
    assert config.layers == {"res5": Layer(module="layer4", pool=(6, 1, 0), batch_norm=True)}


def test_voc07_of_the_paper_and_of_vissl() -> None:
    paper, vissl = preset("svm"), preset("svm_vissl")
    assert paper.layer is None and paper.view is None
    with torch.device("meta"):
        net = ResNet(ResNet.Config(depth=50)).eval()
    view = vissl.view.build()
    size = view.views[0].size
    taps = Taps(net, {"": vissl.layer}, size=size, device=torch.device("meta"))
    assert (size, view.resize, taps.feature_dim) == (224, 256, 8192)
    assert not vissl.layer.batch_norm
    assert replace(vissl, layer=None, view=None) == paper


def test_what_paper_and_code_disagree_about_says_so() -> None:
    assert "The default" in (CONFIGS / "svm.yaml").read_text()
    assert "svm, the default" in (CONFIGS / "svm_vissl.yaml").read_text()
    for name in ("places205", "inat18"):
        paper = (CONFIGS / f"linear_{name}.yaml").read_text()
        code = (CONFIGS / f"linear_layers_{name}.yaml").read_text()
        assert "The default" in paper and f"linear_layers_{name}" in paper
        assert f"linear_{name}, the default" in code
