"""`unlabeled plan`: the words of `pretrain`, and numbers for people."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests_support.command import TINY
from tests_support.in_process import tiny_config
from unlabeled.cli.main import main
from unlabeled.cli.plan import short
from unlabeled.config.check import to_data
from unlabeled.engine.run_directory import RunDirectory, write_yaml

TOPICS = [
    *("parameters", "forward pass", "step", "memory", "traffic", "reading", "checkpoint", "time")
]


def topics(printed: str) -> list[str]:
    """What the lines begin with, without the first one and those that go on."""
    lines = [line[:14].strip() for line in printed.splitlines()[1:]]
    return [topic for topic in lines if topic]


@pytest.mark.slow
def test_a_recipe_is_planned_without_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["backbone=resnet18", "launch.nodes=64", "head.hidden_dim=16", "sharding=fsdp"]
    assert main(["plan", "experiment=swav/r50_ig1b", *overrides]) == 0
    printed = capsys.readouterr().out
    assert topics(printed) == TOPICS
    assert "512 x v100_32gb, 8704 images a step, 17 a forward pass; fp16" in printed
    assert "time          114,890 steps" in printed
    assert all(len(line) <= 140 for line in printed.splitlines())


@pytest.mark.slow
def test_a_run_is_planned_again_and_by_the_words_that_start_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunDirectory(tmp_path / "run")
    run.create()
    write_yaml(run.config_file, to_data(tiny_config(run.path, "max_steps=1")))
    assert main(["plan", *TINY, "launch=local", "max_steps=1"]) == 0
    by_words = capsys.readouterr().out
    assert main(["plan", "--from", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out == by_words
    assert "traffic       none: one process" in by_words
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.slow
def test_what_is_missing_or_wrong_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "experiment=swav/r50_100ep"]) == 2
    assert "or give their number as plan.images=..." in capsys.readouterr().err
    assert main(["plan", "plan.efficiency=2", "batch_sise=8", "plan.gpu=v10"]) == 2
    faults = capsys.readouterr().err
    assert "plan.gpu: got 'v10'" in faults and "batch_sise: unknown key" in faults
    assert main(["plan", "plan.efficiency=2"]) == 2
    assert "plan.efficiency: is a share of what the GPU allows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "text"),
    [(12_836_000_000, "12.8 G"), (999, "999 "), (1000, "1 k"), (0.5, "0.5 "), (6.1e13, "61 T")],
)
def test_numbers_have_three_digits(number: float, text: str) -> None:
    assert short(number) == text
