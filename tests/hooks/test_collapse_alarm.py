"""The alarm speaks of the two kinds of collapse, names ways out, and is silent otherwise."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest

from tests_support.in_process import tiny_config, tiny_trainer
from unlabeled.config.check import build_config
from unlabeled.engine.trainer import Trainer
from unlabeled.errors import ConfigError
from unlabeled.hooks.collapse_alarm import CollapseAlarm

PROTOTYPES = 6
HEALTHY: dict[str, Any] = {"loss": 1.2, "rank_me": 6.9}


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """SwAV with 6 prototypes, after 3 of 3 epochs."""
    trainer = tiny_trainer(tmp_path_factory.mktemp("run"))
    trainer.step = 3 * trainer.settings.steps_per_epoch
    return trainer


def warnings(
    trainer: Trainer, caplog: pytest.LogCaptureFixture, record: dict[str, Any], **settings: Any
) -> list[str]:
    alarm = CollapseAlarm(CollapseAlarm.Config(**settings))
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="unlabeled"):
        alarm.after_epoch(trainer, record)
    return [entry.getMessage() for entry in caplog.records]


def test_a_healthy_epoch_is_passed_over_in_silence(
    trainer: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    assert warnings(trainer, caplog, dict(HEALTHY)) == []


def test_a_loss_of_ln_k_is_called_a_uniform_guess(
    trainer: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    stuck = HEALTHY | {"loss": math.log(PROTOTYPES)}
    (message,) = warnings(trainer, caplog, stuck)
    assert "collapse" in message
    assert "ln K = 1.792" in message
    assert stuck["loss_over_ln_k"] == pytest.approx(1)


@pytest.mark.parametrize(("factor", "said"), [(0.98, 0), (0.995, 1), (1.005, 1), (1.02, 0)])
def test_the_margin_is_relative_and_counts_on_both_sides(
    trainer: Trainer, caplog: pytest.LogCaptureFixture, factor: float, said: int
) -> None:
    record = HEALTHY | {"loss": factor * math.log(PROTOTYPES)}
    assert len(warnings(trainer, caplog, record, loss_margin=0.01)) == said


@pytest.mark.parametrize(("rank", "said"), [(1.0, 1), (1.9, 1), (2.1, 0)])
def test_an_effective_rank_near_one_is_said(
    trainer: Trainer, caplog: pytest.LogCaptureFixture, rank: float, said: int
) -> None:
    messages = warnings(trainer, caplog, HEALTHY | {"rank_me": rank})
    assert len(messages) == said
    assert all(f"{rank:.2f}" in message for message in messages)


def test_every_warning_names_three_remedies(
    trainer: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    both = warnings(trainer, caplog, {"loss": math.log(PROTOTYPES), "rank_me": 1.0})
    assert len(both) == 2
    for message in both:
        for key in ("assigner.epsilon", "method.freeze_prototypes_steps", "assigner.hard"):
            assert key in message


def test_the_remedies_are_keys_that_exist(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        "assigner.epsilon=0.03",
        "method.freeze_prototypes_steps=9",
        "assigner.hard=true",
    )
    assert config.assigner is not None
    assert config.assigner.fields.hard is True


def test_patience_holds_the_first_warnings_back(
    trainer: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    collapsed = {"loss": math.log(PROTOTYPES), "rank_me": 1.0}
    assert warnings(trainer, caplog, dict(collapsed), patience_epochs=4) == []
    assert len(warnings(trainer, caplog, dict(collapsed), patience_epochs=3)) == 2


def test_several_prototype_sets_are_compared_with_their_mean(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sizes = [4, 6, 9]
    trainer = tiny_trainer(tmp_path, "method=deepcluster_v2", f"head.num_prototypes={sizes}")
    uniform = sum(math.log(size) for size in sizes) / 3
    record = HEALTHY | {"loss": uniform}
    assert len(warnings(trainer, caplog, record, patience_epochs=0)) == 1


def test_a_method_without_prototypes_has_only_the_rank_alarm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = tiny_trainer(tmp_path, "method=simclr")
    record = {"loss": math.log(PROTOTYPES), "rank_me": 1.0}
    (message,) = warnings(trainer, caplog, record, patience_epochs=0)
    assert "effective rank" in message
    assert "loss_over_ln_k" not in record


def test_a_run_without_the_rank_meter_is_no_fault(
    trainer: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    assert warnings(trainer, caplog, {"loss": 1.2}) == []


def test_a_negative_patience_is_refused() -> None:
    with pytest.raises(ConfigError, match="patience_epochs: must be 0 or more, got -1"):
        build_config(CollapseAlarm.Config, {"patience_epochs": -1})
