"""A weight decay that moves: the official array, who follows it, and a run that was stopped."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests_support.in_process import tiny_config, tiny_trainer
from tests_support.same_run import assert_same_run
from unlabeled.engine.pretrain import pretrain
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.errors import ConfigError
from unlabeled.optim.optimizers.adamw import AdamW
from unlabeled.optim.optimizers.larc import LARC
from unlabeled.optim.optimizers.lars import LARS
from unlabeled.optim.optimizers.sgd import SGD
from unlabeled.optim.weight_decay import WeightDecaySchedule

DATA = Path(__file__).parents[1] / "data"
OPTIMIZERS = (SGD, AdamW, LARC, LARS)


def optimizer(cls: type, decay: float, *, exclude: bool = True) -> torch.optim.Optimizer:
    layer = nn.Linear(3, 2)
    config = cls.Config(weight_decay=decay, exclude_bias_and_norm=exclude)
    made: torch.optim.Optimizer = cls(config, named_parameters=list(layer.named_parameters()))
    return made


def test_equals_the_official_array() -> None:
    with np.load(DATA / "dino_misc.npz", allow_pickle=False) as golden:
        first, final, epochs, steps, warmup, _ = golden[
            "sched_wd_base_final_epochs_niter_warmup_start"
        ].tolist()
        expected = golden["sched_wd"]
    assert warmup == 0
    decay = WeightDecaySchedule(
        optimizer(AdamW, first), final=final, total_steps=int(epochs * steps)
    )
    np.testing.assert_allclose(
        [decay(step) for step in range(len(expected))], expected, rtol=1e-12, atol=1e-15
    )


def test_by_hand_and_past_the_end() -> None:
    decay = WeightDecaySchedule(optimizer(SGD, 0.2), final=0.6, total_steps=4)
    half = 0.2 * math.sqrt(0.5)
    expected = [0.2, 0.4 - half, 0.4, 0.4 + half, 0.4 + half, 0.4 + half]
    assert [decay(step) for step in range(6)] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("cls", OPTIMIZERS)
def test_excluded_parameters_stay_without_decay(cls: type) -> None:
    for exclude in (True, False):
        made = optimizer(cls, 0.04, exclude=exclude)
        decay = WeightDecaySchedule(made, final=0.4, total_steps=10)
        made.load_state_dict(made.state_dict())  # as a resumed run does: its groups are new ones
        assert decay.set(5) == pytest.approx(0.22)
        expected = {True: pytest.approx(0.22), False: 0.0}
        assert all(g["weight_decay"] == expected[g["regular"]] for g in made.param_groups)
        assert len(made.param_groups) == 1 + exclude


MOVING = ("optimizer.weight_decay=0.1", "final_weight_decay=0.9", "hooks.knn_probe=null")


@pytest.mark.slow
def test_a_run_follows_it_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    short = ("dataset.num_samples=24", "epochs=3")
    alone, parts = (tiny_config(tmp_path / name, *MOVING, *short) for name in ("alone", "parts"))
    pretrain(alone, torch.device("cpu"))
    pretrain(replace(parts, max_steps=3), torch.device("cpu"))
    pretrain(parts, torch.device("cpu"))
    assert_same_run(tmp_path / "parts", tmp_path / "alone", steps=6)
    records = [r for r in RunDirectory(tmp_path / "alone").metrics() if r["phase"] == "train"]
    expected = [0.5 - 0.4 * math.cos(math.pi * step / 6) for step in range(6)]
    assert [r["weight_decay"] for r in records] == pytest.approx(expected)


@pytest.mark.slow
def test_without_a_final_one_nothing_is_scheduled_or_logged(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, "optimizer.weight_decay=0.1")
    assert set(trainer.set_rates()) == {"lr"}
    assert {g["weight_decay"] for g in trainer.optimizer.param_groups if g["regular"]} == {0.1}


def test_a_negative_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="final_weight_decay: must be 0 or more"):
        tiny_config(tmp_path, "final_weight_decay=-0.1")
