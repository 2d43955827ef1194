"""A length in samples that is no more than the data: every image is seen once at most."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests_support.in_process import METHODS, tiny_trainer
from unlabeled.errors import ConfigError

OFFLINE = ("deepcluster_v2", "sela_v2", "deepercluster")


@pytest.mark.parametrize("method", OFFLINE)
def test_methods_that_need_epochs_say_so_at_load(method: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"samples: 48 of 48 .* method {method} learns from"):
        tiny_trainer(tmp_path, f"method={method}", "epochs=null", "samples=48")


@pytest.mark.parametrize("method", METHODS)
def test_others_take_a_single_pass_and_all_take_more(method: str, tmp_path: Path) -> None:
    samples = 49 if method in OFFLINE else 48
    trainer = tiny_trainer(tmp_path, f"method={method}", "epochs=null", f"samples={samples}")
    assert trainer.settings.total_steps == -(-samples // 12)
