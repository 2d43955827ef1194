"""torchvision's detector learns real pictures, and an interruption changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from tests_support.detection_sets import CLASSES, pictures, write_coco, write_voc
from tests_support.detectors import fresh_resnet
from tests_support.ranks import run_ranks
from tests_support.small_detectors import CPU, REGIONS, detection_probe, rcnn_settings
from unlabeled.errors import ConfigError, DivergenceError
from unlabeled.evaluation.subject import IMAGENET
from unlabeled.transfer.detection_data import detection_split
from unlabeled.transfer.detection_images import DetectionImages
from unlabeled.transfer.detection_measuring import detections
from unlabeled.transfer.torchvision_benchmark import parameter_groups, rate, train_and_measure
from unlabeled.transfer.torchvision_detector import RCNN

COUNT = 8
"""Pictures to learn."""
NAMES = list(CLASSES)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test pictures are those of training: what is asked is whether they were learned."""
    folder = tmp_path_factory.mktemp("pictures")
    write_voc(folder, "2007_trainval", pictures(COUNT, seed=0))
    write_voc(folder, "2007_test", pictures(COUNT, seed=0))
    for name in ("train2017", "val2017"):
        write_coco(folder, name, pictures(COUNT, seed=0))
    return folder


def outcome(root: Path | str, depth: Literal[18, 50] = 50, **changes: Any) -> Any:
    settings = rcnn_settings(root, **changes)
    probe = detection_probe(
        fresh_resnet(0.125, depth).eval(), root, settings.layout, settings.train[0], settings.test
    )
    folder = Path(settings.folder or "nowhere")
    return train_and_measure(settings, probe, NAMES, seed=0, folder=folder)


VOC: dict[str, Any] = {
    "layout": "voc",
    "train": ["2007_trainval"],
    "test": "2007_test",
    "detector": "faster_rcnn_fpn",
}
SHORT: dict[str, Any] = {
    **VOC,
    "iterations": 4,
    "decay_iterations": [3],
    "warmup_iterations": 0,
    "batch_size": 2,
    "train_sizes": [48],
    "test_size": 48,
    "depth": 18,
}


@pytest.mark.slow
def test_mask_rcnn_learns_the_pictures_by_the_measures_of_coco_and_of_voc(
    root: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"iterations": 40, "decay_iterations": [32], "warmup_iterations": 5}
    before = outcome(root, **changes | {"iterations": 1, "lr": 1e-8})
    assert before.metrics["AP50"] < 10 and before.metrics["mask_AP50"] < 10
    kept = changes | {"folder": str(tmp_path)}
    after = outcome(root, **kept)
    assert np.mean(after.losses[-10:]) < 0.75 * np.mean(after.losses[:10])
    assert list(after.metrics) == ["AP", "AP50", "AP75", "mask_AP", "mask_AP50", "mask_AP75"]
    assert after.metrics["AP50"] > 50 and after.metrics["mask_AP50"] > 50
    # The same detector, which is only measured, on the same pictures in the other layout.
    settings = rcnn_settings(root, **kept)
    backbone = fresh_resnet(0.125).eval()
    coco = detection_probe(backbone, root, "coco", "train2017", "val2017")
    voc = detection_probe(backbone, root, "voc", "2007_trainval", "2007_test")
    both = replace(coco, test=voc.test)
    metrics = train_and_measure(settings, both, NAMES, seed=0, folder=tmp_path).metrics
    assert list(metrics) == ["AP", "AP50", "AP75"]
    assert abs(metrics["AP50"] - after.metrics["AP50"]) < 10  # 11 points of recall, not 101


@pytest.mark.slow
def test_labels_of_the_test_split_are_never_learned(root: Path, tmp_path: Path) -> None:
    write_voc(tmp_path, "2007_trainval", pictures(COUNT, seed=0))
    write_voc(tmp_path, "2007_test", pictures(COUNT, seed=7))
    assert outcome(root, **SHORT).losses == outcome(tmp_path, **SHORT).losses


@pytest.mark.slow
def test_an_interrupted_training_ends_as_if_it_had_not_been(root: Path, tmp_path: Path) -> None:
    whole = outcome(root, **SHORT)
    assert len(whole.losses) == 4
    kept = SHORT | {"folder": str(tmp_path), "checkpoint_iterations": 2}
    interrupted = outcome(root, **kept | {"iterations": 3})
    assert interrupted.losses == whole.losses[:3]
    continued = outcome(root, **kept)
    assert continued.losses == whole.losses and continued.metrics == whole.metrics
    written = (tmp_path / "training.pt").stat().st_mtime_ns
    assert outcome(root, **kept).metrics == whole.metrics
    assert (tmp_path / "training.pt").stat().st_mtime_ns == written  # it was only measured


def all_found(root: str) -> list[tuple[list[Any], list[float], Any]]:
    """What an untrained detector takes for objects, which is a lot."""
    options = REGIONS | {"box_score_thresh": 0.0}
    settings = rcnn_settings(root, test_size=48, options=options)
    torch.manual_seed(0)
    backbone = fresh_resnet(0.125, 18)
    detector = RCNN(backbone, settings, IMAGENET, num_classes=3, device_type="cpu")
    images = DetectionImages([detection_split("coco", root, "val2017")])
    found = detections(detector, images, device=CPU, workers=0)
    return [(each.boxes.tolist(), each.scores.tolist(), each.masks) for each in found]


def on_a_rank(root: str) -> tuple[Any, Any, str]:
    with pytest.raises(ConfigError) as fault:
        outcome(root, **SHORT | {"batch_size": 3})
    trained = outcome(root, **SHORT | {"norm": "SyncBN", "iterations": 2})
    return trained, all_found(root), str(fault.value)


@pytest.mark.slow
def test_two_ranks_train_together_and_find_what_one_finds(root: Path) -> None:
    (first, found, said), (second, other, _) = run_ranks(on_a_rank, 2, str(root))
    assert first.losses == second.losses and len(first.losses) == 2
    assert first.metrics == second.metrics
    assert "3 pictures do not divide among 2 processes" in said
    assert found == other == all_found(str(root))
    assert len(found) == COUNT and all(boxes for boxes, _, _ in found)


def test_a_loss_that_is_not_finite_is_named(root: Path) -> None:
    with pytest.raises(DivergenceError, match=r"became nan in step \d; lower benchmark.lr"):
        outcome(root, **SHORT | {"lr": 1e30})


def test_the_rate_warms_up_and_falls() -> None:
    settings = rcnn_settings(
        "x", iterations=100, decay_iterations=[60, 80], warmup_iterations=10, warmup_factor=0.2
    )
    assert rate(settings, 0) == pytest.approx(0.2) and rate(settings, 5) == pytest.approx(0.6)
    assert rate(settings, 10) == rate(settings, 59) == 1
    assert rate(settings, 60) == pytest.approx(0.1) and rate(settings, 99) == pytest.approx(0.01)


def test_norms_are_not_decayed() -> None:
    detector = RCNN(
        fresh_resnet(0.125), rcnn_settings("x"), IMAGENET, num_classes=3, device_type="cpu"
    )
    decayed, free = (
        {id(parameter) for parameter in group["params"]}  # type: ignore[attr-defined]
        for group in parameter_groups(detector, 0.5)
    )
    assert decayed | free == {id(parameter) for parameter in detector.parameters()}
    names = {name for name, parameter in detector.named_parameters() if id(parameter) in free}
    assert "model.backbone.body.layer3.0.bn2.weight" in names
    assert "model.backbone.fpn.inner_blocks.0.1.bias" in names
    assert not any("conv" in name.rsplit(".", 2)[-2] or "predictor" in name for name in names)


@pytest.mark.slow
def test_global_random_numbers_and_the_backbone_are_left_as_they_were(root: Path) -> None:
    settings = rcnn_settings(root, **{k: v for k, v in SHORT.items() if k != "depth"})
    backbone = fresh_resnet(0.125).eval()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    probe = detection_probe(backbone, root, "voc", "2007_trainval", "2007_test")
    torch.manual_seed(1)
    train_and_measure(settings, probe, NAMES, seed=0, folder=Path("nowhere"))
    drawn = torch.rand(())
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(()))
    assert all(torch.equal(before[name], now) for name, now in backbone.state_dict().items())
