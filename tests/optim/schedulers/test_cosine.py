from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from unlabeled.config.check import build_config
from unlabeled.errors import ConfigError
from unlabeled.optim.schedulers.cosine import Cosine

DATA = Path(__file__).resolve().parents[2] / "data"


def official(settings: npt.NDArray[np.float64], **fields: Any) -> tuple[Cosine, int]:
    """The schedule of an official run and its length."""
    per_epoch, epochs, base, final, warmup, start = settings.tolist()
    config = build_config(
        Cosine.Config,
        {
            "lr": base,
            "lr_reference_batch_size": None,
            "final_lr": final,
            "warmup_epochs": warmup,
            "warmup_start_lr": start,
            **fields,
        },
    )
    total = int(per_epoch * epochs)
    return (
        Cosine(config, total_steps=total, steps_per_epoch=int(per_epoch), batch_size=4096),
        total,
    )


@pytest.mark.parametrize(
    "fields", [{}, {"lr": 0.3, "lr_reference_batch_size": 256}], ids=["absolute", "per 256 images"]
)
def test_equals_the_official_array_at_batch_4096_bit_for_bit(fields: dict[str, Any]) -> None:
    golden = np.load(DATA / "swav_schedule.npz")
    rate, total = official(golden["bs4096_100ep_settings_L_E_base_final_warmup_start"], **fields)
    assert [rate(t) for t in range(total)] == golden["bs4096_100ep"].tolist()
    assert (rate(0), rate(3119), rate(3120)) == (0.3, 4.8, 4.8)


@pytest.mark.slow
def test_equals_the_official_array_at_batch_256() -> None:
    golden = np.load(DATA / "swav_schedule.npz")
    rate, total = official(golden["bs256_200ep_settings_L_E_base_final_warmup_start"])
    assert total == golden["bs256_200ep_len"]
    assert [rate(int(t)) for t in golden["bs256_200ep_idx"]] == golden[
        "bs256_200ep_values"
    ].tolist()
    assert sum(map(rate, range(total))) == pytest.approx(float(golden["bs256_200ep_sum"]), rel=1e-9)


def test_equals_the_official_linear_probe_with_one_step_an_epoch() -> None:
    expected = np.load(DATA / "swav_eval_lrs.npz")["linear_cosine_ep100_final0"][:, 0]
    rate = Cosine(Cosine.Config(), total_steps=100, steps_per_epoch=1, batch_size=256)
    np.testing.assert_allclose([rate(t) for t in range(100)], expected, rtol=1e-9)


def test_the_body_is_point_symmetric_about_the_mean_of_base_and_final() -> None:
    config = Cosine.Config(lr=2.0, lr_reference_batch_size=None, final_lr=0.5, warmup_epochs=3.0)
    rate = Cosine(config, total_steps=130, steps_per_epoch=10, batch_size=1)
    for t in range(1, 100):
        assert rate(30 + t) + rate(130 - t) == pytest.approx(2.5, rel=1e-12)
    assert 0.5 < rate(129) < rate(128)


def test_a_negative_final_rate_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"final_lr: must be 0 or more, got -0\.1"):
        build_config(Cosine.Config, {"final_lr": -0.1})
