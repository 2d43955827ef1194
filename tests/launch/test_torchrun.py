"""A run that torchrun started equals one that the command started; without torchrun it says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests_support.command import ROOT, TINY, unlabeled
from tests_support.in_process import tiny_config
from unlabeled.config.check import build_config
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.errors import ConfigError
from unlabeled.launch.torchrun import VARIABLES, Torchrun, started_by_torchrun

WORLD = {
    "RANK": "1",
    "WORLD_SIZE": "3",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "3",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}


@pytest.fixture(autouse=True)
def no_world(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def join(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    for name, value in {**WORLD, **changes}.items():
        monkeypatch.setenv(name, value)


def test_without_its_environment_the_fault_names_the_variables_and_both_ways_out() -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(Torchrun.Config, {})
    (problem,) = caught.value.problems
    assert all(name in problem for name in VARIABLES)
    assert "torchrun --nproc_per_node=N -m unlabeled" in problem
    assert "launch=local" in problem


def test_only_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    join(monkeypatch)
    monkeypatch.delenv("MASTER_PORT")
    assert not started_by_torchrun()
    with pytest.raises(ConfigError, match="torchrun was named and MASTER_PORT is not in"):
        build_config(Torchrun.Config, {})


@pytest.mark.slow
def test_the_world_size_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    join(monkeypatch)
    assert started_by_torchrun()
    assert build_config(Torchrun.Config, {}).processes == 3
    config = tiny_config(tmp_path, "launch=torchrun")
    assert config.launch.name == "torchrun"
    assert config.launch.fields.processes == 3


def test_another_number_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    join(monkeypatch)
    with pytest.raises(ConfigError, match="processes: 2, and torchrun started 3; leave it out"):
        build_config(Torchrun.Config, {"processes": 2})


@pytest.mark.slow
def test_the_batch_must_divide_among_its_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    join(monkeypatch, WORLD_SIZE="5")
    with pytest.raises(ConfigError, match="batch_size: 12 does not divide by 5 processes"):
        tiny_config(tmp_path, "launch=torchrun")


@pytest.mark.slow
def test_two_processes_of_torchrun_equal_two_of_the_command_bit_for_bit(tmp_path: Path) -> None:
    arguments = ["pretrain", *TINY, "max_steps=5", "hooks.knn_probe=null"]
    started = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
            *("-m", "unlabeled", *arguments, "run.dir=torchrun"),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "platform"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert started.returncode == 0, started.stderr
    ours = unlabeled(*arguments, "run.dir=local", "launch.processes=2", cwd=tmp_path)
    assert ours.returncode == 0, ours.stderr
    losses = [
        [r["loss"] for r in RunDirectory(tmp_path / name).metrics() if r["phase"] == "train"]
        for name in ("torchrun", "local")
    ]
    assert len(losses[0]) == 5
    assert losses[0] == losses[1]
    assert started.stdout.count("done: torchrun") == 1  # rank 0 alone speaks
