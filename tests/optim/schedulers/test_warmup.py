from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unlabeled.config.check import build_config
from unlabeled.errors import ConfigError
from unlabeled.optim.schedulers.warmup import WarmupSchedule
from unlabeled.registry import get

NAMES = ["cosine", "step", "constant"]


def schedule(
    name: str, total: int = 100, per_epoch: int = 10, batch: int = 256, **fields: Any
) -> WarmupSchedule:
    cls = get("scheduler", name)
    config = build_config(cls.Config, {"lr": 1.0, **fields})
    built = cls(config, total_steps=total, steps_per_epoch=per_epoch, batch_size=batch)
    assert isinstance(built, WarmupSchedule)
    return built


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("epochs", "steps"), [(0.5, 5), (1.0, 10), (3.14, 31), (10.0, 100)])
def test_the_ramp_is_linspace_from_start_to_base(name: str, epochs: float, steps: int) -> None:
    rate = schedule(name, warmup_epochs=epochs, warmup_start_lr=0.1)
    expected = np.linspace(0.1, 1.0, steps)
    assert [rate(t) for t in range(steps)] == expected.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_the_base_rate_comes_twice_after_a_ramp_and_first_without_one(name: str) -> None:
    rate = schedule(name, warmup_epochs=2.0)
    assert rate(18) < rate(19) == rate(20) == 1.0
    assert schedule(name)(0) == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_steps_past_the_end_keep_the_last_rate(name: str) -> None:
    rate = schedule(name, total=37, warmup_epochs=1.0)
    assert rate(37) == rate(36) == rate(10**9)


@pytest.mark.parametrize("name", NAMES)
def test_a_ramp_longer_than_the_run_is_a_config_error_with_the_way_out(name: str) -> None:
    schedule(name, total=100, warmup_epochs=10.0)
    with pytest.raises(ConfigError, match=r"101 steps.*at most 10 epochs"):
        schedule(name, total=100, warmup_epochs=10.1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("fields", "batch", "base", "text"),
    [
        ({"lr": 0.3}, 4096, 4.8, "0.3 x 4096 / 256 = 4.8"),
        ({"lr": 0.3}, 64, 0.075, "0.3 x 64 / 256 = 0.075"),
        ({"lr": 0.3, "lr_scaling": "sqrt"}, 4096, 1.2, "0.3 x sqrt(4096 / 256) = 1.2"),
        ({"lr": 0.05, "lr_reference_batch_size": 512}, 1024, 0.1, "0.05 x 1024 / 512 = 0.1"),
        ({"lr": 4.8, "lr_reference_batch_size": None}, 2560, 4.8, "4.8 (absolute)"),
    ],
)
def test_the_base_rate_follows_the_batch_and_says_how(
    name: str, fields: dict[str, Any], batch: int, base: float, text: str
) -> None:
    rate = schedule(name, batch=batch, **fields)
    assert rate(0) == pytest.approx(base, rel=1e-15)
    assert rate.arithmetic() == text


@pytest.mark.parametrize("name", NAMES)
def test_only_the_base_rate_is_scaled(name: str) -> None:
    rate = schedule(name, batch=4096, warmup_epochs=1.0, warmup_start_lr=0.1)
    assert (rate(0), rate(9)) == (0.1, 16.0)


@pytest.mark.parametrize("name", NAMES)
def test_impossible_fields_are_all_reported(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        schedule(name, lr=0.0, lr_reference_batch_size=0, warmup_epochs=-1.0, warmup_start_lr=-0.1)
    faults = [problem.split(":")[0] for problem in caught.value.problems]
    assert faults == ["lr", "lr_reference_batch_size", "warmup_epochs", "warmup_start_lr"]
