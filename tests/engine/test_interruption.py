"""A run that is asked to stop finishes its step on all ranks, saves it, and loses nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Literal

import pytest
import torch

from tests_support.command import TINY, started, unlabeled
from tests_support.in_process import tiny_config, tiny_trainer
from tests_support.ranks import run_ranks
from tests_support.same_run import assert_same_run, losses
from tests_support.signal_at_step import SignalAtStep
from unlabeled.config.check import build_config
from unlabeled.config.schema import CheckpointConfig
from unlabeled.distributed import comm
from unlabeled.engine.checkpoint_writer import CheckpointWriter
from unlabeled.engine.interruption import Interruption
from unlabeled.engine.pretrain import pretrain, write_description
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.errors import ConfigError, Interrupted

CPU = torch.device("cpu")
QUICK = ("dataset.num_samples=24", "epochs=3", "checkpoint.every_epochs=null")
PROBE = "hooks.knn_probe.every_epochs=1"
STEPS = 6


def stopped_run(run: Path, moment: Literal["step", "epoch"], step: int, *names: str) -> None:
    """Train with signals after a step, or within the evaluation of its epoch."""
    trainer = tiny_trainer(run, *QUICK, PROBE)
    write_description(trainer)
    config = SignalAtStep.Config(moment=moment, step=step, signals=list(names))
    trainer.hooks.insert(0, SignalAtStep(config))
    writer = trainer.hooks[-1]
    assert isinstance(writer, CheckpointWriter)
    with writer.interruption.watching(trainer.config.checkpoint.on_signals):
        trainer.fit()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "step", "names"),
    [
        ("step", 3, ("SIGTERM",)),
        ("step", 3, ("SIGUSR2", "SIGTERM", "SIGUSR2")),
        ("epoch", 2, ("SIGTERM", "SIGTERM")),
    ],
)
def test_stopped_and_continued_equals_never_stopped(
    moment: Literal["step", "epoch"], step: int, names: tuple[str, ...], tmp_path: Path
) -> None:
    alone, stopped = tmp_path / "alone", tmp_path / "stopped"
    pretrain(tiny_config(alone, *QUICK, PROBE), CPU)
    with pytest.raises(Interrupted, match=rf"{names[-1]} after step {step}"):
        stopped_run(stopped, moment, step, *names)
    assert set(losses(stopped)) == set(range(1, step + 1))
    torch.manual_seed(1)  # a process of its own would start elsewhere
    pretrain(tiny_config(stopped, *QUICK, PROBE), CPU)
    assert_same_run(stopped, alone, STEPS)


def test_an_evaluation_is_finished_first(tmp_path: Path) -> None:
    """The step counts as done in the checkpoint, so its evaluation would never be made up."""
    with pytest.raises(Interrupted):
        stopped_run(tmp_path, "epoch", 2, "SIGTERM")
    (epoch,) = (r for r in RunDirectory(tmp_path).metrics() if r["phase"] == "epoch")
    assert epoch["step"] == 2
    assert "knn_top1" in epoch


@pytest.mark.slow
def test_a_signal_in_the_last_step_changes_nothing(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    stopped_run(tmp_path, "step", STEPS, "SIGTERM")
    assert set(losses(tmp_path)) == set(range(1, STEPS + 1))
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_stopped_process_cannot_be_killed_by_the_next_signal(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        stopped_run(tmp_path, "step", 1, "SIGTERM")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_only_the_main_thread_watches() -> None:
    caught: list[str | None] = []

    def watch() -> None:
        with Interruption(CPU).watching(["SIGUSR1"]) as interruption:
            caught.append(interruption.agreed())

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert caught == [None]


def seen_by_all(lone_rank: int) -> list[str | None]:
    """What this rank learns before and after `lone_rank` got a signal."""
    with Interruption(CPU).watching(["SIGUSR1"]) as interruption:
        before = interruption.agreed()
        if comm.rank() == lone_rank:
            os.kill(os.getpid(), signal.SIGUSR1)
        return [before, interruption.agreed()]


@pytest.mark.slow
@pytest.mark.parametrize("lone_rank", [0, 2])
def test_all_ranks_agree_on_a_signal_to_one(lone_rank: int) -> None:
    assert run_ranks(seen_by_all, 3, lone_rank) == [[None, "SIGUSR1"]] * 3


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP", "TERM", "15"])
def test_a_signal_that_cannot_be_caught_is_refused(name: str) -> None:
    settings = {"every_steps": 1, "every_epochs": 1, "keep": 1, "background": True}
    with pytest.raises(ConfigError, match=rf"on_signals: no signal .* '{name}'; e\.g\. SIGTERM"):
        build_config(CheckpointConfig, {**settings, "on_signals": [name]})


def arguments(run: Path, *more: str) -> list[str]:
    """A run of two ranks and two loader processes each, with everything that takes time."""
    choices = [f"run.dir={run}", "launch.processes=2", "loader.kind=processes", "loader.workers=2"]
    return ["pretrain", *TINY, *QUICK, *choices, *more]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, never stopped."""
    folder = tmp_path_factory.mktemp("alone")
    run = unlabeled(*arguments(folder / "run"), cwd=folder)
    assert run.returncode == 0, run.stderr
    return folder / "run"


def signals(*names: str, more: str) -> list[str]:
    """Overrides that send signals after the third step."""
    hook = f"name: signal_at_step, step: 3, signals: [{', '.join(names)}]{more}"
    return ["plugins=[tests_support.signal_plugin]", f"+hooks.signal={{{hook}}}"]


@pytest.mark.slow
@pytest.mark.parametrize("more", [", rank: 1", ", rank: 1, group: true"])
def test_two_ranks_stop_together(more: str, tmp_path: Path, alone: Path) -> None:
    """A scheduler signals one rank, or all processes: the command, ranks, loader workers."""
    send = signals("SIGUSR2", "SIGTERM", more=more)
    stopped = unlabeled(*arguments(tmp_path / "run", *send), cwd=tmp_path)
    assert stopped.returncode == 7, stopped.stderr
    assert (
        "after step 3, which a checkpoint holds; the same command with run.dir=" in stopped.stderr
    )
    assert "Traceback" not in stopped.stderr
    finished = unlabeled(*arguments(tmp_path / "run"), cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert_same_run(tmp_path / "run", alone, STEPS)


@pytest.mark.slow
def test_a_storm_of_signals_to_the_command_corrupts_nothing(tmp_path: Path, alone: Path) -> None:
    """Every few milliseconds from the third step to the end, through checkpoints and probes."""
    saving = ("checkpoint.every_steps=1", PROBE)
    said = tmp_path / "said"
    with (
        said.open("w") as output,
        started(*arguments(tmp_path / "run", *saving), cwd=tmp_path, output=output) as process,
    ):
        while process.poll() is None:
            if (tmp_path / "run" / "checkpoints" / "last").exists():
                process.send_signal(signal.SIGTERM)
                time.sleep(0.005)
            else:
                time.sleep(0.05)
    assert process.returncode == 7, said.read_text()
    finished = unlabeled(*arguments(tmp_path / "run"), cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert_same_run(tmp_path / "run", alone, STEPS)
