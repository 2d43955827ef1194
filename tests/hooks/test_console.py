"""What a person reads while a run goes on."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests_support.in_process import different, state_of, tiny_trainer, trained
from unlabeled.config.check import build_config
from unlabeled.errors import ConfigError
from unlabeled.hooks.console import Console, duration


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599, "59:59"),
        (3600, "1:00:00"),
        (7384, "2:03:04"),
        (86399, "23:59:59"),
        (93784, "1d 02:03:04"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def lines(run: Path, caplog: pytest.LogCaptureFixture, *overrides: str) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="unlabeled"):
        trained(run, "max_steps=5", *overrides)
    return [r.getMessage() for r in caplog.records if r.name == "unlabeled.hooks.console"]


@pytest.mark.slow
def test_every_step_and_every_epoch_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    every = ("hooks.console.every_seconds=0", "hooks.knn_probe.every_epochs=1")
    told = lines(tmp_path, caplog, *every)
    steps = [line for line in told if line.startswith("step ")]
    assert [line.split()[1] for line in steps] == [f"{n}/5" for n in range(1, 6)]
    for part in ("epoch 0.25", "loss ", "lr ", "img/s", "data wait"):
        assert part in steps[0]
    assert "left" not in steps[0]
    assert steps[-1].endswith("0:00 left")
    epochs = [line for line in told if line.startswith("epoch ")]
    assert [line.split()[1] for line in epochs] == ["1", "1.25"]
    for key in ("knn_top1", "feature_std", "rank_me", "prototype_usage", "code_entropy"):
        assert key in epochs[0]


@pytest.mark.slow
def test_steps_are_silent_until_the_time_is_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = lines(tmp_path, caplog, "hooks.console.every_seconds=1000")
    assert [line.split()[0] for line in told] == ["epoch", "epoch"]


@pytest.mark.slow
def test_the_time_left_counts_from_where_this_process_started(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restored at step 7 of 12: a slow first step, then 2 in 20 s, and 2 more to come: 20 s."""
    trainer = tiny_trainer(tmp_path)
    clock = iter([100.0, 200.0, 220.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    console = Console(Console.Config(every_seconds=5))
    trainer.step = 7
    console.before_fit(trainer)
    record = {"epoch": 2.5, "loss": 1.0, "lr": 0.1, "img_per_s": 1.0, "data_wait": 0.25}
    with caplog.at_level(logging.INFO, logger="unlabeled"):
        for trainer.step in (8, 10):
            console.after_step(trainer, record)
    assert caplog.messages[-2].endswith("data wait 25%")
    assert caplog.messages[-1].endswith("data wait 25%  0:20 left")


@pytest.mark.slow
def test_printing_changes_nothing(tmp_path: Path) -> None:
    often = trained(tmp_path / "a", "max_steps=5", "hooks.console.every_seconds=0")
    never = trained(tmp_path / "b", "max_steps=5", "hooks.console=null")
    assert not different(state_of(often), state_of(never))


def test_a_negative_interval_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"every_seconds: must be 0 or more, got -1\.0"):
        build_config(Console.Config, {"every_seconds": -1})
