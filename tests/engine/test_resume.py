"""A run that was killed and continued equals the run that was left alone, bit for bit."""

from __future__ import annotations

import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests_support.command import TINY, unlabeled
from tests_support.in_process import METHODS, tiny_config
from tests_support.same_run import assert_same_run, losses
from unlabeled.engine.pretrain import pretrain

KILLED = [
    "swav",
    "deepcluster_v2",
    "sela_v2",
    "simclr",
    "deepcluster",
    "moco_v2",
    "dino",
    "deepercluster",
]
EXTRA = {
    "swav": ["method.queue_samples=24", "method.queue_start_epoch=1"],
    "moco_v2": ["method.queue_samples=36", "method.batch_norm_groups=3"],
    "dino": ["assigner.warmup_epochs=3", "assigner.temperature=0.07", "final_weight_decay=0.4"],
}
STEPS = 12
CPU = torch.device("cpu")


def arguments(method: str, run: Path, *more: str) -> list[str]:
    extra = [*EXTRA.get(method, []), *more]
    return [
        "pretrain",
        *TINY,
        f"method={method}",
        f"run.dir={run}",
        "checkpoint.every_steps=1",
        *extra,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("method", KILLED)
def test_killed_at_random_steps_equals_never_stopped(method: str, tmp_path: Path) -> None:
    pretrain(tiny_config(tmp_path / "alone", f"method={method}", *EXTRA.get(method, [])), CPU)
    draw = random.Random(method)  # other steps for every method, the same ones every time
    deaths = sorted(draw.sample(range(1, STEPS), 2))
    kill = [
        "plugins=[tests_support.kill_at_step]",
        f"+hooks.kill={{name: kill_at_step, steps: {deaths}, "
        f"memory: '{tmp_path / 'deaths'}', rank: 0}}",
    ]
    for _ in deaths:
        killed = unlabeled(*arguments(method, tmp_path / "killed", *kill), cwd=tmp_path)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    finished = unlabeled(*arguments(method, tmp_path / "killed", *kill), cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "continuing from step" in finished.stdout
    assert_same_run(tmp_path / "killed", tmp_path / "alone", STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["swav", "deepcluster_v2"])
def test_one_killed_rank_of_two_stops_the_job_and_resumes(method: str, tmp_path: Path) -> None:
    alone = unlabeled(*arguments(method, tmp_path / "alone", "launch.processes=2"), cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    kill = [
        "launch.processes=2",
        "plugins=[tests_support.kill_at_step]",
        f"+hooks.kill={{name: kill_at_step, steps: [6], memory: '{tmp_path / 'deaths'}', rank: 1}}",
    ]
    killed = unlabeled(*arguments(method, tmp_path / "killed", *kill), cwd=tmp_path)
    assert killed.returncode not in (0, None)
    assert "rank 1" in killed.stderr
    finished = unlabeled(*arguments(method, tmp_path / "killed", *kill), cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert_same_run(tmp_path / "killed", tmp_path / "alone", STEPS)


@pytest.mark.slow
def test_stopping_early_and_continuing_equals_one_run(tmp_path: Path) -> None:
    alone = unlabeled(*arguments("swav", tmp_path / "alone"), cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    first = unlabeled(*arguments("swav", tmp_path / "parts", "max_steps=7"), cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    second = unlabeled(*arguments("swav", tmp_path / "parts"), cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert_same_run(tmp_path / "parts", tmp_path / "alone", STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_stopped_inside_an_epoch_goes_on_as_if_it_had_not(
    method: str, tmp_path: Path
) -> None:
    """In this process and in half a second; the processes above are real, and slow."""
    extra = (f"method={method}", *EXTRA.get(method, []), "hooks.knn_probe=null")
    choices = (*extra, "dataset.num_samples=24", "epochs=3")
    alone, parts = (tiny_config(tmp_path / name, *choices) for name in ("alone", "parts"))
    pretrain(alone, CPU)
    pretrain(replace(parts, max_steps=5), CPU)
    assert set(losses(tmp_path / "parts")) == {1, 2, 3, 4, 5}
    torch.manual_seed(1)  # a process of its own would start elsewhere
    pretrain(parts, CPU)
    assert_same_run(tmp_path / "parts", tmp_path / "alone", steps=6)
