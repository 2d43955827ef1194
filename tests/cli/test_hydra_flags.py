"""Hydra's own flags work as Hydra's users know them, on configs that are checked all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests_support.command import TINY, unlabeled
from tests_support.in_process import METHODS, tiny_config
from unlabeled.cli.hydra_flags import run_command
from unlabeled.config.check import build_config, to_data
from unlabeled.config.schema import EvaluateConfig, PretrainConfig
from unlabeled.engine.run_directory import RunDirectory, write_yaml
from unlabeled.errors import CheckpointError, ConfigError, DivergenceError, Interrupted
from unlabeled.launch import torchrun

Launched = list[Any]


def launched(*argv: str, name: str = "pretrain", schema: type[Any] = PretrainConfig) -> Launched:
    """The configs that a command line would launch."""
    configs: Launched = []
    assert run_command(name, schema, list(argv), configs.append) == 0
    return configs


@pytest.mark.slow
@pytest.mark.parametrize("flag", [["--cfg", "job"], ["--cfg=job"], ["-c", "job"]])
def test_cfg_job_prints_what_composes_back_to_the_same_config(
    flag: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    choices = [*TINY, "method=deepcluster_v2", "run.dir=here", "seed=7"]
    assert launched(*choices, *flag) == []
    printed = yaml.safe_load(capsys.readouterr().out)
    assert build_config(PretrainConfig, printed) == tiny_config(
        Path("here"), "method=deepcluster_v2", "seed=7"
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_what_is_printed_is_what_is_launched(
    method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    choices = [f"method={method}", "run.dir=here"]
    (config,) = launched(*choices)
    launched(*choices, "--cfg", "job")
    assert build_config(PretrainConfig, yaml.safe_load(capsys.readouterr().out)) == config


def test_cfg_job_of_an_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    choices = ["weights=random", "dataset=digits", "benchmark=linear"]
    (config,) = launched(*choices, name="evaluate", schema=EvaluateConfig)
    launched(*choices, "--cfg", "job", name="evaluate", schema=EvaluateConfig)
    assert build_config(EvaluateConfig, yaml.safe_load(capsys.readouterr().out)) == config


def test_cfg_job_reports_faults_as_a_run_would() -> None:
    with pytest.raises(ConfigError, match="seeed: unknown key"):
        launched("seeed=1", "--cfg", "job")


@pytest.mark.parametrize("flag", ["--multirn", "-x", "--seed=1"])
def test_an_unknown_flag_is_named(flag: str) -> None:
    with pytest.raises(ConfigError, match=f"{flag}: unknown flag"):
        launched(flag)


@pytest.mark.slow
def test_a_sweep_checks_and_launches_every_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configs = launched(*TINY, "--multirun", "method=swav,simclr", "seed=0,1")
    assert [(c.method.name, c.seed) for c in configs] == [
        *[("swav", 0), ("swav", 1), ("simclr", 0), ("simclr", 1)]
    ]
    folders = [Path(c.run.dir) for c in configs]
    assert [folder.name for folder in folders] == ["0", "1", "2", "3"]
    assert len({folder.parent for folder in folders}) == 1
    left = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert left == [str(folders[0].parent / "multirun.yaml")]


def test_a_sweep_says_its_faults_before_the_first_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no-value: expected key=value"):
        launched("--multirun", "seed=0,1", "no-value")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory that holds a config."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    folder.mkdir()
    (config,) = launched(*TINY, f"run.dir={folder}", "method=simclr", "seed=5", "optimizer=sgd")
    write_yaml(folder / "config.yaml", to_data(config))
    return folder


@pytest.mark.slow
def test_from_repeats_a_config_in_a_directory_of_its_own(run: Path) -> None:
    (again,) = launched("--from", str(run))
    before = build_config(PretrainConfig, RunDirectory(run).read_config())
    assert Path(again.run.dir) != run
    assert Path(again.run.dir).name.startswith("first-")
    for name in ("seed", "method", "dataset", "optimizer", "transform", "hooks", "batch_size"):
        assert getattr(again, name) == getattr(before, name)


def test_values_can_be_changed_with_from(run: Path) -> None:
    (again,) = launched("seed=6", "--from", str(run), "optimizer.momentum=0.5", "run.dir=new")
    assert (again.seed, again.optimizer.fields.momentum, again.run.dir) == (6, 0.5, "new")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seeed=1"], "seeed: unknown key. Did you mean 'seed'?"),
        (["method=swav"], "method=swav: with --from, give values such as method.name=..."),
        (["seed"], "seed: expected key=value"),
    ],
)
def test_faults_beside_from(run: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        launched("--from", str(run), *arguments)
    (problem,) = caught.value.problems
    assert problem.startswith(message)


def test_from_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--from: give the run to repeat"):
        launched("--from")
    with pytest.raises(CheckpointError, match="not a run directory"):
        launched("--from", str(tmp_path))


def losses(run: Path) -> list[float]:
    return [r["loss"] for r in RunDirectory(run).metrics() if r["phase"] == "train"]


@pytest.mark.slow
def test_from_gives_the_same_losses_bit_for_bit(tmp_path: Path) -> None:
    first = unlabeled("pretrain", *TINY, "run.dir=first", "max_steps=6", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    again = unlabeled("pretrain", "--from", "first", "run.dir=again", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert len(losses(tmp_path / "first")) == 6
    assert losses(tmp_path / "again") == losses(tmp_path / "first")


@pytest.mark.slow
def test_a_sweep_of_two_makes_two_runs(tmp_path: Path) -> None:
    sweep = ["--multirun", "seed=0,1", "max_steps=2", "hooks.knn_probe=null"]
    ended = unlabeled("pretrain", *TINY, *sweep, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["0", "1", "multirun.yaml"]
    first, second = (losses(folder / name) for name in "01")
    assert len(first) == len(second) == 2
    assert first != second
    alone = unlabeled("pretrain", *TINY, "seed=1", *sweep[2:], "run.dir=alone", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    assert losses(tmp_path / "alone") == second


@pytest.mark.slow
def test_from_with_cfg_job_shows_the_config_and_begins_nothing(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launched("--from", str(run), "--cfg", "job", "seed=6") == []
    shown = build_config(PretrainConfig, yaml.safe_load(capsys.readouterr().out))
    assert (shown.method.name, shown.seed) == ("simclr", 6)
    with pytest.raises(ConfigError, match="--from: --multirun does not go with it"):
        launched("--from", str(run), "--multirun", "seed=1,2")


@pytest.mark.slow
def test_from_under_torchrun_takes_the_processes_that_it_started(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in torchrun.VARIABLES:
        monkeypatch.setenv(name, "1")
    (again,) = launched("--from", str(run))
    assert again.launch.name == "torchrun"


@pytest.mark.slow
def test_a_sweep_ends_with_the_first_job_that_cannot_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="seeed: unknown key"):
        launched(*TINY, "--multirun", "seed=0,1", "seeed=1")
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_choice_of_null_holds_in_every_job_of_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configs = launched(*TINY, "--multirun", "seed=0,1", "assigner=null")
    assert [config.assigner for config in configs] == [None, None]


@pytest.mark.slow
def test_a_job_that_fails_does_not_cost_the_others_and_one_that_is_stopped_ends_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    begun = []

    def launch(config: PretrainConfig) -> None:
        begun.append(config.seed)
        if config.seed == 1:
            raise DivergenceError("the loss became nan")
        if config.seed == 3:
            raise Interrupted("SIGTERM after step 3")

    assert run_command("pretrain", PretrainConfig, [*TINY, "-m", "seed=0,1,2"], launch) == 6
    assert begun == [0, 1, 2]
    assert capsys.readouterr().err == "unlabeled: the loss became nan\n"
    with pytest.raises(Interrupted):
        run_command("pretrain", PretrainConfig, [*TINY, "-m", "seed=3,4"], launch)
    assert begun == [0, 1, 2, 3]
