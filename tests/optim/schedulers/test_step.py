from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from unlabeled.config.check import build_config
from unlabeled.errors import ConfigError
from unlabeled.optim.schedulers.step import Step

DATA = Path(__file__).resolve().parents[2] / "data"


def step(total: int, per_epoch: int, **fields: object) -> Step:
    config = build_config(Step.Config, {"lr_reference_batch_size": None, **fields})
    return Step(config, total_steps=total, steps_per_epoch=per_epoch, batch_size=256)


@pytest.mark.parametrize(
    ("key", "column", "lr"),
    [("semisup_p10", 0, 0.01), ("semisup_p10", 1, 0.2), ("semisup_p1", 0, 0.02)],
)
def test_equals_the_official_semi_supervised_runs(key: str, column: int, lr: float) -> None:
    expected = np.load(DATA / "swav_eval_lrs.npz")[key][:, column]
    rate = step(60, 3, lr=lr, milestones_epochs=[12.0, 16.0], gamma=0.2)
    np.testing.assert_allclose([rate(3 * e) for e in range(20)], expected, rtol=1e-12)
    np.testing.assert_allclose([rate(3 * e + 2) for e in range(20)], expected, rtol=1e-12)


def test_equals_torch_s_multi_step_schedule() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.7)
    reference = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[5, 11, 12], gamma=0.3)
    rate = step(20, 2, lr=0.7, milestones_epochs=[2.5, 5.5, 6.0], gamma=0.3)
    for t in range(20):
        assert rate(t) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        reference.step()


def test_milestones_count_from_the_start_of_the_run_with_its_warmup() -> None:
    rate = step(100, 10, lr=1.0, milestones_epochs=[4.0], gamma=0.5, warmup_epochs=2.0)
    assert (rate(20), rate(39), rate(40), rate(99)) == (1.0, 1.0, 0.5, 0.5)


def test_impossible_fields_are_config_errors() -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(Step.Config, {"gamma": 0.0, "milestones_epochs": [8.0, 4.0]})
    assert [p.split(":")[0] for p in caught.value.problems] == ["gamma", "milestones_epochs"]
