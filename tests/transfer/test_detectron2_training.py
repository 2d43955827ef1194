"""A detector learns real pictures: the loss falls, and Detectron2's own evaluators see it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests_support.detection_sets import CLASSES, pictures, write_coco, write_voc
from tests_support.detectors import FPN, fresh_resnet, settings
from tests_support.detectron2_compiled import needs_detectron2
from tests_support.ranks import run_ranks
from unlabeled.errors import ConfigError
from unlabeled.evaluation.benchmarks.detection import Detection
from unlabeled.evaluation.subject import IMAGENET
from unlabeled.models.backbone_files import load_into, read_weights
from unlabeled.models.backbones.resnet import ResNet
from unlabeled.models.key_maps import find_backbone
from unlabeled.transfer.detection_data import detection_split
from unlabeled.transfer.resnet_shape import shape_of

pytestmark = [needs_detectron2, pytest.mark.slow]
COUNT = 12
"""Pictures to learn."""


def outcome(
    config: Detection.Config, folder: Path, seed: int = 0, backbone: ResNet | None = None
) -> Any:
    from unlabeled.transfer.detectron2_benchmark import train_and_measure

    return train_and_measure(
        config,
        fresh_resnet() if backbone is None else backbone,
        IMAGENET,
        list(CLASSES),
        train=[detection_split(config.layout, config.root, name) for name in config.train],
        test=detection_split(config.layout, config.root, config.test),
        device=torch.device("cpu"),
        workers=0,
        seed=seed,
        folder=folder,
    )


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test pictures are those of training: what is asked is whether they were learned."""
    root = tmp_path_factory.mktemp("voc")
    write_voc(root, "2007_trainval", pictures(COUNT, seed=0))
    write_voc(root, "2007_test", pictures(COUNT, seed=0))
    return root


def test_faster_rcnn_c4_learns_the_pictures_of_voc(voc: Path, tmp_path: Path) -> None:
    before = outcome(settings(voc, iterations=1, decay_iterations=[], lr=1e-8), tmp_path / "no")
    after = outcome(settings(voc), tmp_path / "yes")
    assert np.mean(after.losses[-10:]) < 0.75 * np.mean(after.losses[:10])
    assert before.metrics["AP50"] < 10
    assert after.metrics["AP50"] > 50
    assert set(after.metrics) == {"AP", "AP50", "AP75"}
    assert after.metrics["AP75"] <= after.metrics["AP50"]


def test_mask_rcnn_fpn_learns_the_pictures_of_coco(tmp_path: Path) -> None:
    for name in ("train2017", "val2017"):
        write_coco(tmp_path, name, pictures(COUNT, seed=0))
    config = settings(
        tmp_path,
        layout="coco",
        train=["train2017"],
        test="val2017",
        classes=None,
        detector="mask_rcnn_fpn",
        detectron2=FPN,
    )
    after = outcome(config, tmp_path / "run")
    assert np.mean(after.losses[-10:]) < 0.75 * np.mean(after.losses[:10])
    assert set(after.metrics) == {"AP", "AP50", "AP75", "mask_AP", "mask_AP50", "mask_AP75"}
    assert after.metrics["AP50"] > 50
    assert after.metrics["mask_AP50"] > 50


def test_the_detector_sees_the_pixels_in_the_backbones_order(voc: Path) -> None:
    """RGB, as PIL reads them; Detectron2's own default is BGR."""
    from detectron2.data import build_detection_test_loader

    from unlabeled.transfer.detectron2_config import detectron2_config
    from unlabeled.transfer.detectron2_data import register_split

    name = register_split(detection_split("voc", str(voc), "2007_test"), list(CLASSES))
    cfg = detectron2_config(
        settings(voc),
        shape_of(fresh_resnet()),
        IMAGENET,
        num_classes=len(CLASSES),
        train=[name],
        test=name,
        device=torch.device("cpu"),
        workers=0,
        seed=0,
        folder="none",
    )
    (seen,) = next(iter(build_detection_test_loader(cfg, name)))
    stored = np.asarray(Image.open(seen["file_name"]))
    assert np.array_equal(seen["image"].permute(1, 2, 0).numpy(), stored)
    assert not np.array_equal(stored, stored[:, :, ::-1])


def short(root: Path, **changes: Any) -> Detection.Config:
    """Four iterations, a checkpoint after every second one."""
    base = settings(root)
    period = [*base.detectron2, "SOLVER.CHECKPOINT_PERIOD", 2]
    fields = {"iterations": 4, "decay_iterations": [3], "batch_size": 2, "detectron2": period}
    return settings(root, **fields | changes)


def test_labels_of_the_test_split_are_never_learned(voc: Path, tmp_path: Path) -> None:
    write_voc(tmp_path, "2007_trainval", pictures(COUNT, seed=0))
    write_voc(tmp_path, "2007_test", pictures(COUNT, seed=7))
    config = short(voc)
    assert outcome(config, tmp_path / "a").losses == outcome(short(tmp_path), tmp_path / "b").losses


def test_global_random_numbers_and_the_backbone_are_left_as_they_were(
    voc: Path, tmp_path: Path
) -> None:
    random.seed(1)
    np.random.seed(1)
    backbone = fresh_resnet()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    torch.manual_seed(1)
    outcome(short(voc, iterations=1, decay_iterations=[]), tmp_path, backbone=backbone)
    assert all(torch.equal(before[name], now) for name, now in backbone.state_dict().items())
    drawn = random.random(), np.random.rand(), torch.rand(())
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    assert drawn == (random.random(), np.random.rand(), torch.rand(()))


def test_an_interrupted_training_continues_and_a_whole_one_is_only_measured(
    voc: Path, tmp_path: Path
) -> None:
    config = short(voc, folder=str(tmp_path))
    whole = outcome(config, tmp_path)
    assert len(whole.losses) == 4
    again = outcome(config, tmp_path)
    assert again.losses == [] and again.metrics == whole.metrics
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")  # written after two iterations
    continued = outcome(config, tmp_path)
    assert len(continued.losses) == 2
    # Its file, with optimizer and schedule in it, is read as data, and holds a trained backbone.
    file, backbone = tmp_path / "model_final.pth", fresh_resnet()
    before = backbone.layer4[2].conv3.weight.clone()
    load_into(backbone, find_backbone(read_weights(file), backbone, origin="file")[1], "file")
    assert not torch.equal(backbone.layer4[2].conv3.weight, before)


def learned(root: str, folder: str) -> Any:
    """A training that is continued from `folder`, or only measured if it is over there."""
    return outcome(short(Path(root), iterations=16, folder=folder), Path(folder))


def on_a_rank(root: str, kept: str, fresh: str) -> tuple[Any, Any, list[str]]:
    """What `kept` holds, a training of both ranks, and what is said of impossible settings."""
    said = []
    for change in ({"batch_size": 3}, {"norm": "SyncBN"}):
        with pytest.raises(ConfigError) as fault:
            outcome(short(Path(root), **change), Path(fresh))
        said.append(str(fault.value))
    return learned(root, kept), outcome(short(Path(root)), Path(fresh)), said


def test_two_ranks_measure_what_one_measures_and_train_together(voc: Path, tmp_path: Path) -> None:
    kept, fresh = str(tmp_path / "kept"), str(tmp_path / "fresh")
    alone = learned(str(voc), kept)
    assert len(alone.losses) == 16 and alone.metrics["AP"] > 0.1
    first, second = run_ranks(on_a_rank, 2, str(voc), kept, fresh)
    for measured in (first[0], second[0]):
        assert measured.metrics == alone.metrics and measured.losses == []
    assert first[1].metrics == second[1].metrics
    assert (len(first[1].losses), len(second[1].losses)) == (4, 0)  # rank 0 notes the mean
    assert first[2] == second[2]
    assert "3 images do not divide among 2 processes" in first[2][0]
    assert "benchmark.norm=BN" in first[2][1]
