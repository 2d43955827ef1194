from __future__ import annotations

import sys
from typing import Any

import pytest
import timm
import torch

from unlabeled.config.check import build_config
from unlabeled.errors import ConfigError, EnvironmentProblem
from unlabeled.models.backbones.timm import Timm
from unlabeled.registry import Component


def build(**fields: Any) -> Any:
    return Component("backbone", "timm", build_config(Timm.Config, fields)).build()


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("resnet18", 64),
        ("vit_tiny_patch16_224", 224),
        ("mobilenetv3_small_050", 64),  # a layer after num_features: 288 -> 1024
        ("vgg11", 64),  # 512 -> 4096
        ("convnext_atto", 64),
        ("xcit_nano_12_p16_224", 64),
    ],
)
def test_feature_dim_is_the_width_of_the_output(model: str, size: int) -> None:
    with torch.device("meta"):  # shapes without the 130 M numbers of vgg11
        backbone = build(model=model).eval()
        features = backbone(torch.empty(1, 3, size, size))
    assert features.shape == (1, backbone.feature_dim)


def test_parameters_keep_timm_s_names() -> None:
    expected = timm.create_model("resnet18", num_classes=0).state_dict()
    assert list(build(model="resnet18").state_dict()) == list(expected)


def test_options_reach_the_model() -> None:
    backbone = build(model="vit_tiny_patch16_224", options={"dynamic_img_size": True}).eval()
    with torch.no_grad():
        assert backbone(torch.randn(1, 3, 96, 96)).shape == (1, 192)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "millions"),
    # El-Nouby et al. 2021, table 1, of the models with a classifier of 1000 classes: 26 M for S12
    # and 84 M for M24; without it 0.4 M and 0.5 M fewer.
    [("xcit_small_12_p16_224", 26), ("xcit_medium_24_p16_224", 84)],
)
def test_xcit_has_the_published_sizes(model: str, millions: int) -> None:
    with torch.device("meta"):
        backbone = build(model=model)
    parameters = sum(p.numel() for p in backbone.parameters())
    assert round((parameters + 1001 * backbone.feature_dim) / 1e6) == millions


def test_xcit_takes_crops_of_several_sizes() -> None:
    backbone = build(model="xcit_nano_12_p16_224").eval()
    with torch.no_grad():
        for size in (64, 48):
            features = backbone(torch.randn(1, 3, size, size))
            assert features.shape == (1, backbone.feature_dim) and features.isfinite().all()


def test_an_option_that_the_model_does_not_take_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"backbone\.options: 'resnet18' does not take"):
        build(model="resnet18", options={"dynamic_img_size": True})


def test_an_option_of_ours_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="options: must not contain num_classes"):
        build(model="resnet18", options={"num_classes": 5})


def test_an_unknown_model_is_a_config_error_with_close_names() -> None:
    with pytest.raises(ConfigError, match=r"no model 'resnet_18'.*did you mean .*resnet18"):
        build(model="resnet_18")


def test_without_timm_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'unlabeled\[timm\]'"):
        build(model="resnet18")
