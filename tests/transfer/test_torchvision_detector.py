"""Our ResNet in torchvision's detector: the same features, torchvision's shapes, norms as asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn, maskrcnn_resnet50_fpn
from torchvision.ops import FrozenBatchNorm2d

from tests_support.detectors import fresh_resnet, resnet
from tests_support.small_detectors import rcnn_settings
from unlabeled.config.schema import Normalization
from unlabeled.data.normalize import Normalize
from unlabeled.errors import ConfigError
from unlabeled.models.backbones.resnet import ResNet
from unlabeled.transfer.detection_pictures import Picture
from unlabeled.transfer.torchvision_detector import RCNN

PIXELS = Normalization(mean=(0.485, 0.456, 0.406), std=(0.228, 0.224, 0.225))


def detector(backbone: ResNet, **changes: Any) -> RCNN:
    torch.manual_seed(0)
    return RCNN(
        backbone, rcnn_settings(Path(), **changes), PIXELS, num_classes=3, device_type="cpu"
    )


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
@pytest.mark.parametrize("depth", [18, 50])
@torch.no_grad()
def test_the_same_picture_has_the_same_four_stages(depth: int, norm: str) -> None:
    backbone = resnet(depth).eval()
    model = detector(backbone, norm=norm).eval().model
    images = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)
    theirs = model.backbone.body(model.transform(list(images / 255))[0].tensors)
    x = Normalize(PIXELS, torch.device("cpu"))(images)
    x = backbone.maxpool(backbone.relu(backbone.bn1(backbone.conv1(x))))
    for stage in range(4):
        x = getattr(backbone, f"layer{stage + 1}")(x)
        scale = float(x.abs().max())
        torch.testing.assert_close(theirs[str(stage)], x, rtol=0, atol=1e-5 * scale)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["faster_rcnn_fpn", "mask_rcnn_fpn"])
def test_a_resnet_50_at_full_width_becomes_torchvisions_own_model(kind: str) -> None:
    """So its published weights would load."""
    made = {"faster_rcnn_fpn": fasterrcnn_resnet50_fpn, "mask_rcnn_fpn": maskrcnn_resnet50_fpn}
    with torch.device("meta"):
        theirs = made[kind](weights=None, weights_backbone=None, num_classes=4)
        backbone = ResNet(ResNet.Config(depth=50))
        ours = detector(backbone, detector=kind, norm="FrozenBN", pyramid_channels=256).model
    counter = "num_batches_tracked"  # torchvision's, without weights, has plain batch norms
    shapes = {n: t.shape for n, t in theirs.state_dict().items() if counter not in n}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == shapes


def test_all_layers_learn_and_the_backbone_is_a_copy() -> None:
    backbone = fresh_resnet().requires_grad_(False)
    model = detector(backbone)
    assert all(parameter.requires_grad for parameter in model.parameters())
    body = model.model.backbone.body
    assert torch.equal(body.conv1.weight, backbone.conv1.weight)
    assert body.conv1.weight.data_ptr() != backbone.conv1.weight.data_ptr()
    frozen = detector(backbone, norm="FrozenBN")
    assert any(isinstance(each, FrozenBatchNorm2d) for each in frozen.modules())
    assert not any(isinstance(each, nn.BatchNorm2d) for each in frozen.modules())
    assert all(parameter.requires_grad for parameter in frozen.parameters())


def test_a_picture_without_objects_has_a_loss_too() -> None:
    model = detector(fresh_resnet(0.125)).train()
    empty = Picture(
        torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8),
        torch.zeros(0, 4),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, 64, 96, dtype=torch.uint8),
    )
    loss = model([empty, empty])
    torch.autograd.backward(loss)
    assert loss.isfinite() and loss > 0


@pytest.mark.slow
def test_sizes_of_training_and_test_are_as_asked() -> None:
    model = detector(fresh_resnet(0.125), train_sizes=[64, 80], test_size=112)
    sides: list[int] = []
    model.model.backbone.register_forward_pre_hook(lambda _, x: sides.append(min(x[0].shape[2:])))
    image = torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8)
    one = Picture(
        image,
        torch.tensor([[10.0, 10.0, 50.0, 50.0]]),
        torch.tensor([0]),
        torch.ones(1, 96, 96, dtype=torch.uint8),
    )
    for _ in range(8):
        model.train()([one, one])
    (found,) = model.eval().detect([image])
    assert set(sides[:-1]) == {64, 96} and sides[-1] == 128  # in multiples of 32
    assert found.boxes.max(initial=0) <= 96 and found.masks is not None
    assert len(found.masks) == len(found.boxes) == len(found.scores) == len(found.labels)


def test_an_option_that_torchvision_has_not_is_named() -> None:
    with pytest.raises(ConfigError, match=r"has no 'box_nms_tresh'; did you mean box_nms_thresh"):
        detector(fresh_resnet(0.125), options={"box_nms_tresh": 1})
    with pytest.raises(ConfigError, match=r"benchmark.options: .* no 'colour': it has rpn_"):
        detector(fresh_resnet(0.125), options={"colour": 1})
