"""Our ResNet under DETR: the same features, the library's loss, the right layers trained."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests_support.detectors import fresh_resnet, resnet
from tests_support.ranks import run_ranks
from tests_support.small_detr import TRANSFORMER, detr_settings
from unlabeled.config.schema import Normalization
from unlabeled.data.normalize import Normalize
from unlabeled.distributed import comm
from unlabeled.distributed.group import data_parallel
from unlabeled.errors import ConfigError, EnvironmentProblem
from unlabeled.models.backbones.resnet import ResNet
from unlabeled.models.backbones.resnext import ResNeXt
from unlabeled.transfer.detection_pictures import Picture
from unlabeled.transfer.transformers_detr import DETR, require_transformers

pytestmark = pytest.mark.slow
PIXELS = Normalization(mean=(0.485, 0.456, 0.406), std=(0.228, 0.224, 0.225))
CPU = torch.device("cpu")


def detr(backbone: Any, **changes: Any) -> DETR:
    torch.manual_seed(0)
    return DETR(backbone, detr_settings(Path(), **changes), PIXELS, num_classes=3)


def picture(height: int, width: int, count: int, seed: int = 0) -> Picture:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 20
    sides = 10 + torch.rand(count, 2, generator=generator) * 20
    return Picture(
        torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator),
        torch.cat([corners, corners + sides], dim=1),
        torch.randint(0, 3, (count,), generator=generator),
    )


def last_stage(backbone: ResNet, images: torch.Tensor) -> torch.Tensor:
    """By the backbone's own layers, from uint8 images."""
    x = Normalize(PIXELS, CPU)(images)
    x = backbone.maxpool(backbone.relu(backbone.bn1(backbone.conv1(x))))
    for stage in (1, 2, 3, 4):
        x = getattr(backbone, f"layer{stage}")(x)
    return x


@pytest.mark.parametrize(("depth", "width"), [(50, 0.25), (101, 0.125), (18, 0.5), (34, 0.125)])
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_the_same_picture_has_the_same_last_stage(depth: int, width: float, training: bool) -> None:
    """In training too: the norms are frozen."""
    backbone = resnet(depth, width).eval()
    model = detr(backbone).train(training)
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    pixels, mask = model.batch(list(images))
    assert mask.all()
    (theirs,) = model.backbone(pixels).feature_maps
    ours = last_stage(backbone, images)
    assert theirs.shape == ours.shape == (2, backbone.feature_dim, 2, 3)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5 * float(ours.abs().max()))


def test_the_backbone_learns_from_its_second_stage_on() -> None:
    model = detr(fresh_resnet(0.125)).train()
    torch.autograd.backward(model([picture(64, 64, 2), picture(48, 80, 1, seed=1)]))
    learned = {name for name, p in model.backbone.named_parameters() if p.grad is not None}
    expected = {
        name for name, _ in model.backbone.named_parameters()
        if any(f"encoder.stages.{stage}." in name for stage in (1, 2, 3))
    }  # fmt: skip
    assert learned == expected and len(expected) > 20
    moving = [p.grad for p in model.backbone.parameters() if p.grad is not None]
    assert all(float(gradient.abs().sum()) > 0 for gradient in moving)
    assert not any("normalization" in name for name in learned)  # buffers, not parameters


def test_the_loss_is_the_librarys_own_when_alone() -> None:
    model = detr(fresh_resnet(0.125)).eval()  # without dropout, so that twice is the same
    shown = [picture(64, 64, 2), picture(48, 80, 1, seed=1)]
    pixels, mask = model.batch([each.image for each in shown])
    labels = [
        {
            "class_labels": each.labels,
            "boxes": torch.stack(
                [
                    (each.boxes[:, 0] + each.boxes[:, 2]) / 2 / each.image.shape[2],
                    (each.boxes[:, 1] + each.boxes[:, 3]) / 2 / each.image.shape[1],
                    (each.boxes[:, 2] - each.boxes[:, 0]) / each.image.shape[2],
                    (each.boxes[:, 3] - each.boxes[:, 1]) / each.image.shape[1],
                ],
                dim=1,
            ),
        }
        for each in shown
    ]
    theirs = model.model(pixel_values=pixels, pixel_mask=mask, labels=labels)
    torch.testing.assert_close(model(shown), theirs.loss)
    assert any(name.startswith("loss_giou_") for name in theirs.loss_dict)  # of every layer


def test_smaller_pictures_are_padded_and_the_padding_is_marked() -> None:
    model = detr(fresh_resnet(0.125))
    small, large = picture(64, 48, 1), picture(96, 64, 1, seed=1)
    pixels, mask = model.batch([small.image, large.image])
    assert pixels.shape == (2, 3, 96, 64)
    assert mask[0, :64, :48].all() and mask[0].sum() == 64 * 48 and mask[1].all()
    assert float(pixels[0, :, 64:].abs().max()) == float(pixels[0, :, :, 48:].abs().max()) == 0
    alone, _ = model.batch([small.image])
    assert torch.equal(pixels[0, :, :64, :48], alone[0])


def test_detections_are_in_pixels_of_the_picture_as_it_was_given() -> None:
    model = detr(fresh_resnet(0.125), test_size=64).eval()
    image = picture(96, 144, 0).image
    (found,) = model.detect([image])
    (smaller,) = model.detect([image[:, ::2, ::2]])
    assert len(found.boxes) == TRANSFORMER["num_queries"] and found.masks is None
    assert found.boxes.max() <= 144 + 144 / 2 and found.boxes.max() > 1
    assert ((found.scores > 0) & (found.scores < 1)).all() and set(found.labels) <= {0, 1, 2}
    # Boxes are shares of the picture: the half picture has half of them, or nearly.
    assert abs(found.boxes / 2 - smaller.boxes).max() < 6


def on_a_rank() -> list[torch.Tensor]:
    torch.set_default_dtype(torch.float64)
    try:
        model = detr(fresh_resnet(0.125)).eval()
        parallel = data_parallel(model, CPU)
        mine = [picture(64, 64, 3), picture(64, 64, 1, seed=1)][comm.rank() :: comm.world_size()]
        for _ in range(2):  # a parameter that no loss reached would show in the second pass
            torch.autograd.backward(parallel(mine))
        heads = model.model.bbox_predictor.parameters()
        return [p.grad for p in heads if p.grad is not None]
    finally:
        torch.set_default_dtype(torch.float32)


def test_losses_of_boxes_count_over_all_ranks() -> None:
    """Three boxes on one rank and one on the other are four, not twice a mean."""
    together = run_ranks(on_a_rank, 2)
    alone = on_a_rank()
    for ranks in together:
        for one, other in zip(ranks, alone, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_what_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"takes a ResNet, this is a ResNeXt of 8 groups"):
        detr(ResNeXt(ResNeXt.Config(depth=50, groups=8, width_per_group=4)))
    with pytest.raises(ConfigError, match=r"options: DetrConfig has no colour"):
        detr(fresh_resnet(0.125), options={"colour": 1})
    require_transformers()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'unlabeled\[detr\]'"):
        require_transformers()
