"""The table at the end of a run, and the commands that repeat its numbers."""

from __future__ import annotations

import logging
import re
import shlex
from pathlib import Path

import pytest
import torch

from tests_support.in_process import tiny_config, trained
from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import EvaluateConfig
from unlabeled.engine.trainer import Trainer
from unlabeled.evaluation.evaluate import measure
from unlabeled.evaluation.results import read_result
from unlabeled.evaluation.subject import load_subject
from unlabeled.hooks.comparison_table import ComparisonTable, as_arguments
from unlabeled.registry import Component, get

ROWS = ("raw pixels", "random initialisation", "pretrained")


def benchmark(name: str, **fields: object) -> Component:
    return Component("benchmark", name, get("benchmark", name).Config(**fields))


def table() -> ComparisonTable:
    measured = {
        "knn": benchmark("knn", k=[3, 5], report_k=3),
        "linear": benchmark("linear", epochs=3, augment=False, normalize_features="standardize"),
        "linear_raw": benchmark("linear", epochs=1, augment=False),
    }
    return ComparisonTable(ComparisonTable.Config(benchmarks=measured, image_size=16))


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A run at its end, its description written."""
    from unlabeled.engine.pretrain import pretrain

    run = tmp_path_factory.mktemp("runs") / "run"
    pretrain(tiny_config(run, "max_steps=4"), torch.device("cpu"))
    return trained(run, "max_steps=4")


def printed(trainer: Trainer, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="unlabeled"):
        hook = table()
        hook.before_fit(trainer)
        hook.after_fit(trainer)
    return "\n".join(caplog.messages).splitlines()


def cells(lines: list[str]) -> dict[str, list[str]]:
    """Per row name, its numbers as they are printed."""
    return {
        name: re.findall(r"\d+\.\d\d", line)
        for line in lines
        for name in ROWS
        if line.startswith(name)
    }


@pytest.mark.slow
def test_three_rows_and_the_command_of_every_number(
    trainer: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    """Running the printed command gives the printed number."""
    lines = printed(trainer, caplog)
    rows = cells(lines)
    assert list(rows) == list(ROWS)
    assert all(len(numbers) == 3 for numbers in rows.values())
    commands = [line.strip() for line in lines if line.strip().startswith("unlabeled evaluate")]
    assert len(commands) == 9
    expected = [rows[name][column] for column in (0, 1, 2) for name in ROWS]
    for command, number in zip(commands, expected, strict=True):
        arguments = shlex.split(command)[2:]
        # The command takes batch size and device from evaluate.yaml: they must not change a number.
        composed = compose_config("evaluate", [*arguments, "loader.workers=0", "device=cpu"])
        config = build_config(EvaluateConfig, composed.data, composed.problems)
        result = measure(config, load_subject(config), torch.device("cpu"))
        assert f"{result.metrics['top1']:.2f}" == number, command


def test_the_pretrained_row_is_kept_as_results(
    trainer: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    rows = cells(printed(trainer, caplog))
    for name, number in zip(("knn", "linear", "linear_raw"), rows["pretrained"], strict=True):
        result = read_result(trainer.run.results / f"{name}.json")
        assert result.benchmark == name.partition("_")[0]
        assert f"{result.metrics['top1']:.2f}" == number


@pytest.mark.slow
def test_data_without_labels_is_passed_over_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = trained(tmp_path, "max_steps=1")
    trainer.probe_data = "the training images have no labels"
    assert printed(trainer, caplog) == ["no comparison table: the training images have no labels"]


def test_arguments_name_only_what_differs_from_the_defaults() -> None:
    assert as_arguments(benchmark("knn")) == "benchmark=knn"
    lists = as_arguments(benchmark("knn", k=[3, 5], report_k=3))
    assert lists == "benchmark=knn 'benchmark.k=[3,5]' benchmark.report_k=3"  # a shell may glob
    changed = benchmark("linear", epochs=3, augment=False, normalize_features="standardize")
    words = as_arguments(changed).split()
    assert words[0] == "benchmark=linear"
    assert set(words[1:]) == {
        "benchmark.epochs=3",
        "benchmark.augment=false",
        "benchmark.normalize_features=standardize",
    }
