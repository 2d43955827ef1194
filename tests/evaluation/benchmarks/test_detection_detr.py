from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests_support.detection_sets import pictures, write_coco
from tests_support.small_detectors import on_the_command_line
from tests_support.small_detr import TRANSFORMER
from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import EvaluateConfig
from unlabeled.errors import ConfigError, DataError, EnvironmentProblem
from unlabeled.evaluation.benchmarks.detection_detr import DetectionDETR
from unlabeled.evaluation.evaluate import evaluate

CPU = torch.device("cpu")
TINY = [
    "weights=random",
    "device=cpu",
    "loader.workers=0",
    "benchmark.runs=2",
    "benchmark.epochs=1",
    "benchmark.batch_size=2",
    "benchmark.train_sizes=[48]",
    "benchmark.test_size=48",
    f"benchmark.options={on_the_command_line(TRANSFORMER)}",
]
SMALL = ["backbone=resnet50", "backbone.width=0.125"]


def config(*overrides: str) -> EvaluateConfig:
    composed = compose_config("evaluate", ["benchmark=detection_detr", *overrides])
    return build_config(EvaluateConfig, composed.data, composed.problems)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    for seed, name in enumerate(("train2017", "val2017")):
        write_coco(tmp_path, name, pictures(3, seed=seed))
    return tmp_path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs: must be positive, got 0"),
        ({"weight_decay": -1.0}, "weight_decay: must be 0 or more"),
        ({"train_sizes": []}, "train_sizes: needs one or more"),
        ({"classes": []}, "classes: needs one or more, or null"),
    ],
)
def test_impossible_configs_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(DetectionDETR.Config, {"root": "somewhere", **fields})


def test_the_preset_has_the_constants_of_detr_and_swav() -> None:
    detr = config("benchmark.root=x", "weights=random").benchmark.fields
    assert (detr.epochs, detr.decay_epochs, detr.batch_size) == (300, 200, 64)
    assert (detr.lr, detr.lr_backbone, detr.weight_decay) == (1e-4, 5e-5, 1e-4)
    assert detr.largest_gradient == 0.1
    assert detr.train_sizes == [*range(480, 801, 32)] and detr.test_size == 800


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("transformers", r"needs the transformers library.*unlabeled\[detr\]"),
        ("pycocotools", r"needs pycocotools.*unlabeled\[detection\]"),
    ],
)
def test_a_missing_library_is_named(
    coco: Path, module: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EnvironmentProblem, match=message):
        evaluate(config(*TINY, *SMALL, f"benchmark.root={coco}"), CPU)


@pytest.mark.slow
def test_what_cannot_be_measured_is_named(coco: Path) -> None:
    vit = ["backbone=timm", "backbone.model=vit_tiny_patch16_224"]
    with pytest.raises(ConfigError, match=r"needs a ResNet or ResNeXt, got VisionTransformer"):
        evaluate(config(*TINY, *vit, f"benchmark.root={coco}"), CPU)
    (coco / "val2017" / "000000000001.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 4 files of val2017 .*000000000001.jpg"):
        evaluate(config(*TINY, *SMALL, f"benchmark.root={coco}"), CPU)


@pytest.mark.slow
def test_evaluate_writes_the_mean_of_the_runs(coco: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    evaluate(config(*TINY, *SMALL, f"benchmark.root={coco}", f"out={out}"), CPU)
    result: dict[str, Any] = json.loads(out.read_text())
    assert list(result["metrics"])[:3] == ["AP", "AP50", "AP75"]
    assert result["dataset"] == "coco" and "mean of 2 runs" in result["protocol"]
    assert "of the backbone 5e-05" in result["protocol"]
