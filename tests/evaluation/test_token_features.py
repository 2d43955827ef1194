from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests_support.probes import Pixels, make_probe
from unlabeled.config.schema import Normalization
from unlabeled.data.normalize import Normalize
from unlabeled.errors import ConfigError
from unlabeled.evaluation.benchmarks.copy_detection import CopyDetection
from unlabeled.evaluation.token_features import (
    cls_and_gem,
    cls_and_mean_patch,
    last_cls_tokens,
    require_map,
    require_tokens,
    whole_patches,
)
from unlabeled.evaluation.whole_images import square, whole_features
from unlabeled.models.backbone_files import load_into
from unlabeled.models.backbones.regnet import RegNet
from unlabeled.models.backbones.resnet import ResNet
from unlabeled.models.backbones.vit import ViT

DATA = Path(__file__).parents[1] / "data"
IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
TINY = ViT.Config(width=8, depth=3, heads=2, patch=4, image_size=16)


def vit() -> ViT:
    """Untrained, with tokens and norms far from their initial values."""
    backbone = ViT(TINY).eval().requires_grad_(False)
    for parameter in backbone.parameters():
        parameter.add_(0.3 * torch.randn(parameter.shape))
    return backbone


def images(height: int = 8, width: int = 12) -> Tensor:
    return torch.randn(3, 3, height, width)


def by_hand(backbone: ViT, batch: Tensor) -> list[Tensor]:
    """The tokens after every block, each through the final norm."""
    found: list[Tensor] = []
    for block in backbone.blocks:
        block.register_forward_hook(lambda *args: found.append(backbone.norm(args[2])))
    backbone(batch)
    for block in backbone.blocks:
        block._forward_hooks.clear()
    return found


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_cls_tokens_stand_one_behind_the_other_the_last_block_last(blocks: int) -> None:
    backbone, batch = vit(), images()
    found = last_cls_tokens(backbone, blocks)(batch)
    expected = [tokens[:, 0] for tokens in by_hand(backbone, batch)[-blocks:]]
    torch.testing.assert_close(found, torch.cat(expected, dim=1))
    torch.testing.assert_close(found[:, -8:], backbone(batch))


def test_cls_and_mean_patch_alternate() -> None:
    backbone, batch = vit(), images()
    found = cls_and_mean_patch(backbone)(batch)
    last = by_hand(backbone, batch)[-1]
    assert found.shape == (3, 16)
    for number in range(8):
        torch.testing.assert_close(found[:, 2 * number], last[:, 0, number])
        torch.testing.assert_close(found[:, 2 * number + 1], last[:, 1:, number].mean(dim=1))


@pytest.mark.parametrize("power", [1.0, 2.5, 4.0])
def test_patches_are_pooled_by_their_generalised_mean(power: float) -> None:
    backbone, batch = vit(), images()
    found = cls_and_gem(backbone, power)(batch)
    last = by_hand(backbone, batch)[-1]
    torch.testing.assert_close(found[:, :8], last[:, 0])
    raised = np.maximum(last[:, 1:].double().numpy(), 1e-6) ** power
    np.testing.assert_allclose(found[:, 8:], raised.mean(axis=1) ** (1 / power), rtol=1e-4)
    assert (last[:, 1:] < 0).any()


def test_copies_are_compared_by_dino_s_features() -> None:
    """Five pictures, resized to squares, through official code and through the benchmark."""
    golden = np.load(DATA / "dino_copy_features.npz")
    weights = {
        name.removeprefix("param:"): torch.from_numpy(golden[name])
        for name in golden.files
        if name.startswith("param:")
    }
    side, patch = int(golden["set_S"]), int(golden["set_P"])
    config = ViT.Config(width=16, depth=2, heads=2, mlp_ratio=2.0, patch=patch, image_size=side)
    backbone = ViT(config).eval().requires_grad_(False)
    load_into(backbone, weights, "golden")
    pictures = Pixels(golden["images_uint8"], None, ())
    probe = replace(
        make_probe(pictures, pictures, encode=backbone, backbone=backbone, feature_dim=16),
        normalize=Normalize(IMAGENET, torch.device("cpu")),
    )
    benchmark = CopyDetection(CopyDetection.Config(features="cls_and_gem", image_size=side))
    described = benchmark.described(probe)
    found = whole_features(described, pictures, square(side))
    expected = torch.from_numpy(golden["features_cls_then_gem4"])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert described.feature_dim == found.shape[1] == 32


@pytest.mark.parametrize("size", [(11, 18), (8, 19), (15, 16), (8, 16)])
def test_the_border_that_fills_no_patch_is_left_out(size: tuple[int, int]) -> None:
    backbone, batch = vit(), images(*size)
    height, width = (side // 4 * 4 for side in size)
    expected = backbone(batch[:, :, :height, :width])
    assert torch.equal(whole_patches(backbone, backbone)(batch), expected)


def test_an_image_smaller_than_a_patch_is_refused_by_its_own_size() -> None:
    backbone = vit()
    with pytest.raises(ConfigError, match="images of 3 x 8 px"):
        whole_patches(backbone, backbone)(images(3, 9))


def test_backbones_without_patches_see_the_whole_image() -> None:
    backbone = nn.AdaptiveAvgPool2d(1)
    assert whole_patches(backbone, backbone) is backbone


@pytest.mark.parametrize(
    "backbone",
    [
        ResNet(ResNet.Config(depth=18, width=0.25)),
        ResNet(ResNet.Config(depth=50, width=0.125, stem="small")),
        ResNet(ResNet.Config(depth=18, width=0.25, stages=2)),
        RegNet(RegNet.Config(depth=4, w0=16, wa=8.0, wm=2.0, group_width=8)),
    ],
    ids=["resnet18", "resnet50-small", "two-stages", "regnet"],
)
def test_the_map_of_a_convolutional_network_is_what_it_pools(backbone: nn.Module) -> None:
    backbone.eval()
    batch = torch.randn(2, 3, 64, 96)
    found = require_map(backbone, "benchmark.layer").feature_map(batch)
    assert found.ndim == 4 and found.shape[3] == 1.5 * found.shape[2]
    torch.testing.assert_close(found.mean(dim=(2, 3)), backbone(batch))
    with pytest.raises(ConfigError, match=r"benchmark\.features: .*Net\) has no CLS and patch"):
        require_tokens(backbone, "benchmark.features")


def test_a_backbone_without_a_map_is_named() -> None:
    with pytest.raises(ConfigError, match=r"benchmark\.layer: the backbone \(Flatten\)"):
        require_map(nn.Flatten(), "benchmark.layer")
