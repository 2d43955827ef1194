"""Every tensor of a ResNet has its place in Detectron2, and a picture the same features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from tests_support.detectors import resnet, settings
from tests_support.detectron2_compiled import needs_detectron2
from unlabeled.config.schema import Normalization
from unlabeled.data.normalize import Normalize
from unlabeled.errors import CheckpointError, ConfigError
from unlabeled.models.backbone_files import load_into, read_weights
from unlabeled.models.backbones.resnet import ResNet
from unlabeled.models.backbones.resnext import ResNeXt
from unlabeled.models.key_maps import find_backbone
from unlabeled.transfer.detectron2_names import detectron2_name, load_backbone
from unlabeled.transfer.resnet_shape import shape_of

PIXELS = Normalization(mean=(0.485, 0.456, 0.406), std=(0.228, 0.224, 0.225))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("conv1.weight", "stem.conv1.weight"),
        ("bn1.running_mean", "stem.conv1.norm.running_mean"),
        ("layer1.0.conv2.weight", "res2.0.conv2.weight"),
        ("layer3.5.bn3.bias", "res4.5.conv3.norm.bias"),
        ("layer4.0.downsample.0.weight", "res5.0.shortcut.weight"),
        ("layer4.0.downsample.1.running_var", "res5.0.shortcut.norm.running_var"),
    ],
)
def test_names_are_detectron2s(ours: str, theirs: str) -> None:
    assert detectron2_name(ours) == theirs


@pytest.mark.parametrize("name", ["blocks.0.attn.qkv.weight", "layer5.0.conv1.weight", "weight"])
def test_a_name_of_another_network_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match=name):
        detectron2_name(name)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_no_two_tensors_get_one_name(depth: int) -> None:
    with torch.device("meta"):
        names = list(torchvision.models.get_model(f"resnet{depth}").state_dict())
    names = [name for name in names if not name.startswith("fc.")]
    assert len({detectron2_name(name) for name in names}) == len(names)


def detector(backbone: ResNet, **changes: Any) -> Any:
    """Detectron2's model for the backbone, not filled yet, in evaluation mode."""
    from detectron2.modeling import build_model

    from unlabeled.transfer.detectron2_config import detectron2_config

    cfg = detectron2_config(
        settings(Path(), detectron2=[], **changes),
        shape_of(backbone),
        PIXELS,
        num_classes=3,
        train=["none"],
        test="none",
        device=torch.device("cpu"),
        workers=0,
        seed=0,
        folder="none",
    )
    return build_model(cfg).eval()


def maps(backbone: ResNet, images: Tensor) -> dict[str, Tensor]:
    """Feature maps of uint8 images [B, 3, h, w], by the backbone's own layers."""
    x = Normalize(PIXELS, torch.device("cpu"))(images)
    x = backbone.maxpool(backbone.relu(backbone.bn1(backbone.conv1(x))))
    found = {}
    for stage in (1, 2, 3, 4):
        x = getattr(backbone, f"layer{stage}")(x)
        found[f"res{stage + 1}"] = x
    return found


def backbones(kind: str) -> ResNet:
    if kind == "resnext":
        model: Any = ResNeXt(ResNeXt.Config(depth=50, groups=8, width_per_group=4))
        return model
    return resnet(18, 1.0) if kind == "resnet18" else resnet()


@needs_detectron2
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["resnet50", "resnext", "resnet18"])
@pytest.mark.parametrize("norm", ["BN", "FrozenBN", "SyncBN"])
@torch.no_grad()
def test_the_same_picture_has_the_same_feature_maps_in_a_pyramid(kind: str, norm: str) -> None:
    backbone = backbones(kind).eval()
    model = detector(backbone, detector="faster_rcnn_fpn", norm=norm)
    load_backbone(model, backbone.state_dict())
    images = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)
    theirs = model.backbone.bottom_up(
        model.preprocess_image([{"image": image} for image in images]).tensor
    )
    ours = maps(backbone, images)
    assert set(theirs) == set(ours)
    for name, expected in ours.items():
        scale = float(expected.abs().max())
        torch.testing.assert_close(theirs[name], expected, rtol=0, atol=1e-5 * scale)


@needs_detectron2
@pytest.mark.slow
@torch.no_grad()
def test_the_same_picture_has_the_same_c4_and_res5_maps() -> None:
    """And the fresh norm after res5 is there, and is not the backbone's."""
    backbone = resnet().eval()
    model = detector(backbone)
    load_backbone(model, backbone.state_dict())
    images = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)
    x = model.preprocess_image([{"image": image} for image in images]).tensor
    c4 = model.backbone(x)["res4"]
    res5, norm = model.roi_heads.res5[:3], model.roi_heads.res5[3]
    ours = maps(backbone, images)
    for theirs, expected in ((c4, ours["res4"]), (res5(c4), ours["res5"])):
        scale = float(expected.abs().max())
        torch.testing.assert_close(theirs, expected, rtol=0, atol=1e-5 * scale)
    assert isinstance(norm, nn.BatchNorm2d) and norm.num_features == backbone.feature_dim
    torch.testing.assert_close(model.roi_heads.res5(c4), norm(res5(c4)))


@needs_detectron2
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["faster_rcnn_c4", "mask_rcnn_fpn"])
@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
@torch.no_grad()
def test_a_trained_detector_gives_its_backbone_back(kind: str, norm: str, tmp_path: Path) -> None:
    """From the file that Detectron2 writes; noise on every tensor stands for training."""
    from detectron2.checkpoint import DetectionCheckpointer

    backbone = resnet()
    model = detector(backbone, detector=kind, norm=norm)
    load_backbone(model, backbone.state_dict())
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(1 + 0.1 * torch.rand_like(tensor))
    DetectionCheckpointer(model, str(tmp_path)).save("model_final", iteration=5)
    file = tmp_path / "model_final.pth"
    layout, state = find_backbone(read_weights(file), backbone, origin=str(file))
    load_into(backbone, state, str(file))
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    ours = maps(backbone.eval(), images)["res5"]
    x = model.preprocess_image([{"image": image} for image in images]).tensor
    if kind == "mask_rcnn_fpn":
        theirs = model.backbone.bottom_up(x)["res5"]
    else:
        theirs = model.roi_heads.res5[:3](model.backbone(x)["res4"])
    assert layout == "detectron2"
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))


@needs_detectron2
def test_weights_that_do_not_fit_fill_nothing() -> None:
    backbone = resnet()
    model = detector(backbone)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = backbone.state_dict()
    short = {name: tensor for name, tensor in state.items() if name != "layer2.0.conv1.weight"}
    with pytest.raises(CheckpointError, match=r"nothing for .*res3.0.conv1.weight.* \(1\)"):
        load_backbone(model, short)
    wide = {**state, "conv1.weight": torch.zeros(64, 3, 7, 7)}
    with pytest.raises(CheckpointError, match=r"no place for \['conv1.weight'\] \(1\)"):
        load_backbone(model, wide)
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


@needs_detectron2
def test_a_backbone_without_bottlenecks_has_no_c4_detector() -> None:
    with pytest.raises(ConfigError, match=r"ResNet-18.*faster_rcnn_fpn"):
        detector(resnet(18, 1.0))
    with pytest.raises(ConfigError, match=r"ResNet-18 at width 1 alone.*16 instead of 64"):
        detector(resnet(18, 0.25), detector="faster_rcnn_fpn")
