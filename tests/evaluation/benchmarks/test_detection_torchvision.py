from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests_support.detection_sets import CLASSES, pictures, write_coco, write_voc
from tests_support.small_detectors import REGIONS, on_the_command_line
from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import EvaluateConfig
from unlabeled.errors import ConfigError, DataError, EnvironmentProblem
from unlabeled.evaluation.benchmarks.detection_torchvision import DetectionTorchvision
from unlabeled.evaluation.evaluate import evaluate

CPU = torch.device("cpu")
TINY = [
    "weights=random",
    "device=cpu",
    "loader.workers=0",
    f"benchmark.classes=[{','.join(CLASSES)}]",
    "benchmark.train=[2007_trainval]",
    "benchmark.runs=2",
    "benchmark.iterations=2",
    "benchmark.decay_iterations=[1]",
    "benchmark.batch_size=2",
    "benchmark.norm=BN",
    "benchmark.pyramid_channels=8",
    "benchmark.train_sizes=[48]",
    "benchmark.test_size=48",
    f"benchmark.options={on_the_command_line(REGIONS)}",
]
SMALL = ["backbone=resnet50", "backbone.width=0.125"]


def config(*overrides: str, benchmark: str = "detection_torchvision_voc07_12") -> EvaluateConfig:
    composed = compose_config("evaluate", [f"benchmark={benchmark}", *overrides])
    return build_config(EvaluateConfig, composed.data, composed.problems)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    write_voc(tmp_path, "2007_trainval", pictures(4, seed=0))
    write_voc(tmp_path, "2007_test", pictures(3, seed=1))
    return tmp_path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"runs": 0}, "runs: must be positive, got 0"),
        ({"warmup_factor": -1.0}, "warmup_factor: must be 0 or more"),
        ({"train": []}, "train: needs one or more"),
        ({"train": ["trainval"]}, "train: a VOC split is .* got 'trainval'"),
        ({"classes": []}, "classes: needs one or more, or null"),
        ({"detector": "mask_rcnn_fpn"}, "detector: mask_rcnn_fpn needs polygons"),
    ],
)
def test_impossible_configs_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(DetectionTorchvision.Config, {"root": "somewhere", **fields})


@pytest.mark.slow
def test_presets_have_the_constants_of_their_sources() -> None:
    """Detectron2's configurations with a pyramid; COCO's equal those of benchmark=detection."""
    voc = config("benchmark.root=x", "weights=random").benchmark.fields
    assert (voc.iterations, voc.decay_iterations) == (18000, [12000, 16000])
    assert (voc.lr, voc.warmup_iterations, voc.warmup_factor) == (0.02, 100, 0.001)
    assert (voc.batch_size, voc.runs, voc.norm) == (16, 5, "SyncBN")
    assert voc.train_sizes == [*range(480, 801, 32)] and voc.test_size == 800
    shared = ("layout", "train", "test", "detector", "runs", "iterations", "decay_iterations")
    shared += ("batch_size", "lr", "warmup_iterations", "warmup_factor", "norm", "train_sizes")
    for times in (1, 2):
        ours, theirs = (
            config("benchmark.root=x", "weights=random", benchmark=name).benchmark.fields
            for name in (f"detection_torchvision_coco_{times}x", f"detection_coco_fpn_{times}x")
        )
        assert [getattr(ours, each) for each in shared] == [
            getattr(theirs, each) for each in shared
        ]


@pytest.mark.slow
def test_coco_needs_pycocotools_and_voc_nothing(voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco(voc, "train2017", pictures(2, seed=0))
    for name in [name for name in sys.modules if name.partition(".")[0] == "pycocotools"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    coco = config(
        "weights=random", *SMALL, f"benchmark.root={voc}", benchmark="detection_torchvision_coco_1x"
    )
    with pytest.raises(EnvironmentProblem, match=r"needs pycocotools.*unlabeled\[detection\]"):
        evaluate(coco, CPU)
    evaluate(config(*TINY, *SMALL, f"benchmark.root={voc}", "benchmark.runs=1"), CPU)


@pytest.mark.slow
def test_what_cannot_be_measured_is_named(voc: Path, tmp_path: Path) -> None:
    vit = ["backbone=timm", "backbone.model=vit_tiny_patch16_224"]
    with pytest.raises(ConfigError, match=r"needs a ResNet or ResNeXt, got VisionTransformer"):
        evaluate(config(*TINY, *vit, f"benchmark.root={voc}"), CPU)
    (voc / "VOC2007" / "JPEGImages" / "test001.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 6 files of 2007_test .*JPEGImages/test001.jpg"):
        evaluate(config(*TINY, *SMALL, f"benchmark.root={voc}"), CPU)


@pytest.mark.slow
def test_evaluate_writes_the_mean_of_the_runs_on_the_benchmarks_own_data(
    voc: Path, tmp_path: Path
) -> None:
    def measured(file: str, *overrides: str) -> dict[str, Any]:
        out = [f"benchmark.root={voc}", f"out={tmp_path / file}"]
        evaluate(config(*TINY, *SMALL, *out, *overrides), CPU)
        result: dict[str, Any] = json.loads((tmp_path / file).read_text())
        return result

    first = measured("first.json")
    assert list(first["metrics"])[:3] == ["AP50", "AP", "AP75"]
    assert first["dataset"] == "voc" and "mean of 2 runs" in first["protocol"]
    kept = f"benchmark.folder={tmp_path / 'kept'}"
    assert measured("kept.json", kept)["metrics"] == first["metrics"]
    measured("other.json", kept, "seed=1")  # other weights, so nothing to continue from
    assert len(list((tmp_path / "kept").glob("*/seed1/training.pt"))) == 2
    path = voc / "VOC2007" / "Annotations" / "test001.xml"
    path.write_text(re.sub(r"<ymin>\d+", "<ymin>1", path.read_text()))
    changed = measured("changed.json")
    assert changed["identity"] != first["identity"]
    assert changed["fingerprint"] != first["fingerprint"]
