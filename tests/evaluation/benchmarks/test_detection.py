from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests_support.detection_sets import CLASSES, pictures, write_voc
from tests_support.detectors import C4
from tests_support.detectron2_compiled import needs_detectron2
from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import EvaluateConfig
from unlabeled.errors import ConfigError, DataError, EnvironmentProblem
from unlabeled.evaluation.benchmarks.detection import Detection
from unlabeled.evaluation.evaluate import evaluate

CPU = torch.device("cpu")
TINY = [
    "weights=random",
    "backbone=resnet50",
    "backbone.width=0.125",
    "device=cpu",
    "loader.workers=0",
    f"benchmark.classes=[{','.join(CLASSES)}]",
    "benchmark.train=[2007_trainval]",
    "benchmark.runs=2",
    "benchmark.iterations=3",
    "benchmark.decay_iterations=[2]",
    "benchmark.batch_size=2",
    "benchmark.norm=BN",
    "benchmark.precise_bn_iterations=2",
    "benchmark.train_sizes=[64]",
    "benchmark.test_size=64",
    f"benchmark.detectron2={json.dumps(C4)}",
]


def config(*overrides: str, benchmark: str = "detection_voc07_12_c4") -> EvaluateConfig:
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
        ({"detectron2": ["SOLVER.GAMMA"]}, "detectron2: needs keys and values in turn"),
    ],
)
def test_impossible_configs_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(Detection.Config, {"root": "somewhere", **fields})


@pytest.mark.slow
def test_presets_have_the_constants_of_their_sources() -> None:
    """MoCo's Detectron2 configs with SwAV's override, and Detectron2's 1x and 2x schedules."""
    voc = config("benchmark.root=x", "weights=random").benchmark.fields
    assert (voc.iterations, voc.decay_iterations) == (24000, [18000, 22000])
    assert (voc.lr, voc.warmup_iterations, voc.warmup_factor) == (0.1, 1000, 0.333)
    assert (voc.batch_size, voc.runs, voc.norm) == (16, 5, "SyncBN")
    assert voc.train_sizes == [*range(480, 801, 32)] and voc.test_size == 800
    for times in (1, 2):
        name = f"detection_coco_fpn_{times}x"
        coco = config("benchmark.root=x", "weights=random", benchmark=name).benchmark.fields
        assert coco.iterations == 90000 * times
        assert coco.decay_iterations == [60000 * times, 80000 * times]
        assert (coco.train, coco.test, coco.detector) == (["train2017"], "val2017", "mask_rcnn_fpn")
        assert (coco.lr, coco.warmup_iterations, coco.batch_size) == (0.02, 1000, 16)


def test_without_detectron2_the_error_says_how_to_install_it(
    voc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "detectron2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "detectron2", None)
    with pytest.raises(EnvironmentProblem, match=r"needs Detectron2.*pip install .*git"):
        evaluate(config(*TINY, f"benchmark.root={voc}"), CPU)


@needs_detectron2
def test_an_absent_data_set_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"VOC2007/ImageSets/Main/trainval.txt is absent"):
        evaluate(config(*TINY, f"benchmark.root={tmp_path}"), CPU)


@needs_detectron2
@pytest.mark.slow
def test_evaluate_writes_the_mean_of_the_runs_on_the_benchmarks_own_data(
    voc: Path, tmp_path: Path
) -> None:
    def measured(file: str, *overrides: str) -> dict[str, Any]:
        evaluate(config(*TINY, f"benchmark.root={voc}", f"out={tmp_path / file}", *overrides), CPU)
        result: dict[str, Any] = json.loads((tmp_path / file).read_text())
        return result

    first = measured("first.json")
    assert list(first["metrics"])[:3] == ["AP50", "AP", "AP75"]
    assert first["dataset"] == "voc" and "mean of 2 runs" in first["protocol"]
    again = measured("again.json")
    assert again["metrics"] == first["metrics"] and again["identity"] == first["identity"]
    kept = f"benchmark.folder={tmp_path / 'kept'}"
    assert measured("kept.json", kept)["metrics"] == first["metrics"]
    measured("other.json", kept, "seed=1")  # other weights, so nothing to continue from
    assert len(list((tmp_path / "kept").glob("*/seed1/model_final.pth"))) == 2
    path = voc / "VOC2007" / "Annotations" / "test001.xml"
    path.write_text(re.sub(r"<ymin>\d+", "<ymin>1", path.read_text()))
    changed = measured("changed.json")
    assert changed["identity"] != first["identity"]
    assert changed["fingerprint"] != first["fingerprint"]
