"""A suite beside a run: every checkpoint is measured, until the run is done."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from tests_support.command import TINY, started
from tests_support.in_process import tiny_config
from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.suites import SuiteConfig
from unlabeled.engine.pretrain import pretrain
from unlabeled.errors import ConfigError
from unlabeled.evaluation.suite import run_suite
from unlabeled.evaluation.watch import watch

CPU = torch.device("cpu")
SMALL = [
    "loader.workers=0",
    "device=cpu",
    "watch_seconds=0.1",
    "suite.parts.linear=null",
    "suite.parts.knn.benchmark.k=[3]",
    "suite.parts.knn.benchmark.report_k=3",
]


def config(weights: Path | str, *overrides: str) -> SuiteConfig:
    composed = compose_config("suite", [f"weights={weights}", *SMALL, *overrides])
    return build_config(SuiteConfig, composed.data, composed.problems)


def steps(folder: Path) -> dict[int, float]:
    files = folder.glob("*/knn.json")
    return {int(f.parent.name): json.loads(f.read_text())["metrics"]["top1"] for f in files}


@pytest.mark.slow
def test_each_checkpoint_is_measured_as_the_suite_would(tmp_path: Path) -> None:
    run = tmp_path / "run"
    every = ["max_steps=4", "checkpoint.every_steps=1", "checkpoint.keep=3"]
    pretrain(tiny_config(run, *every), CPU)
    watch(config(run), CPU)
    found = steps(run / "results")
    assert sorted(found) == [2, 3, 4]
    for step, top1 in found.items():
        (folder,) = (run / "checkpoints").glob(f"*{step}")
        run_suite(config(folder, f"out={tmp_path / str(step)}"), CPU)
        assert (
            json.loads((tmp_path / str(step) / "knn.json").read_text())["metrics"]["top1"] == top1
        )
    lines = (run / "results" / "quick_by_step.txt").read_text().splitlines()[2:]
    assert [line.split() for line in lines] == [[str(n), f"{found[n]:.2f}"] for n in (2, 3, 4)]


def test_only_a_run_can_be_watched(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no run"):
        watch(config("random", "dataset=digits", "backbone=resnet18_stage1"), CPU)


@pytest.mark.slow
def test_watching_ends_with_the_run(tmp_path: Path) -> None:
    """The run is a process of its own, and has begun but not ended when the watch looks."""
    run = tmp_path / "run"
    training = [*TINY, f"run.dir={run}", "epochs=10", "checkpoint.every_steps=10"]
    with started("pretrain", *training, cwd=tmp_path) as trained:
        while not (run / "config.yaml").exists():
            assert trained.poll() is None
            time.sleep(0.01)
        begun = trained.poll() is None
        watch(config(run), CPU)
        assert trained.wait(timeout=240) == 0
    assert begun
    assert max(steps(run / "results")) == 40  # 10 epochs of 4 steps
