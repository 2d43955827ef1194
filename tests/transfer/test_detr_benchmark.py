"""DETR learns real pictures for a few epochs; pycocotools says how well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from tests_support.detection_sets import CLASSES, pictures, write_coco
from tests_support.small_detectors import detection_probe
from tests_support.small_detr import detr_settings
from unlabeled.data.normalize import Normalize
from unlabeled.evaluation.subject import IMAGENET
from unlabeled.models.backbones.resnet import ResNet
from unlabeled.transfer.detection_pictures import Picture
from unlabeled.transfer.detr_benchmark import train_and_measure
from unlabeled.transfer.transformers_detr import DETR

pytestmark = pytest.mark.slow
NAMES = list(CLASSES)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    for name in ("train2017", "val2017"):
        write_coco(folder, name, pictures(6, seed=0))
    return folder


@torch.no_grad()
def settled_resnet() -> ResNet:
    """With statistics of real pictures in its norms, which stay as they are from here on."""
    torch.manual_seed(0)
    backbone = ResNet(ResNet.Config(depth=18, width=0.125)).train()
    images = np.stack([each.pixels for each in pictures(6, seed=0)]).transpose(0, 3, 1, 2)
    normalised = Normalize(IMAGENET, torch.device("cpu"))(torch.from_numpy(images.copy()))
    for _ in range(10):
        backbone(normalised)
    return backbone.eval()


def outcome(root: Path, **changes: Any) -> Any:
    settings = detr_settings(root, **changes)
    probe = detection_probe(settled_resnet(), root, "coco", "train2017", "val2017")
    return train_and_measure(settings, probe, NAMES, seed=0, folder=Path(settings.folder or "x"))


def test_it_finds_what_it_was_shown_again_and_again() -> None:
    """The same views every time; of the pictures with one object the best box is around it."""
    shown = [
        Picture(
            torch.from_numpy(each.pixels.transpose(2, 0, 1).copy()),
            torch.tensor([[b.left, b.top, b.right, b.bottom] for b in each.boxes]).float(),
            torch.tensor([NAMES.index(b.name) for b in each.boxes]),
        )
        for each in pictures(3, seed=0)
    ]
    torch.manual_seed(0)
    model = DETR(settled_resnet(), detr_settings("x"), IMAGENET, num_classes=3).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.001)
    losses = []
    for _ in range(80):
        loss = model(shown)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    for picture in (shown[0], shown[2]):
        (found,) = model.eval().detect([picture.image])
        best = int(found.scores.argmax())
        assert found.labels[best] == int(picture.labels[0])
        assert float(box_iou(torch.from_numpy(found.boxes[best : best + 1]), picture.boxes)) > 0.5


def test_the_loss_falls_and_pycocotools_judges(root: Path) -> None:
    after = outcome(root, epochs=24, decay_epochs=20, batch_size=6, lr=0.002)
    assert len(after.losses) == 24  # all six pictures in every step
    assert np.mean(after.losses[-5:]) < 0.95 * np.mean(after.losses[:5])
    assert list(after.metrics) == ["AP", "AP50", "AP75"]
    assert 0 <= after.metrics["AP"] <= after.metrics["AP50"] <= 100


def test_an_interrupted_training_ends_as_if_it_had_not_been(root: Path, tmp_path: Path) -> None:
    whole = outcome(root, epochs=3, decay_epochs=2)
    kept = {"folder": str(tmp_path), "decay_epochs": 2}
    assert outcome(root, epochs=2, **kept).losses == whole.losses[:4]
    continued = outcome(root, epochs=3, **kept)
    assert continued.losses == whole.losses and continued.metrics == whole.metrics
