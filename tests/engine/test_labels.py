"""Labels reach a self-supervised method nowhere: other labels, or none, give the same bits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from torch import Tensor

from tests_support.in_process import METHODS, different, state_of, trained
from unlabeled.data.sources.base import Split
from unlabeled.data.sources.synthetic import Synthetic
from unlabeled.errors import ConfigError
from unlabeled.registry import register

SELF_SUPERVISED = [name for name in METHODS if name != "supervised"]


class Relabelled(Synthetic):
    """The drawn shapes with their labels as they are, in another order, or without any."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Synthetic.Config):
        given: Literal["own", "permuted", "none"] = "own"
        """Which labels the images have."""

    def __init__(self, config: Config, *, split: Split) -> None:
        super().__init__(config, split=split)
        assert self.labels is not None
        if config.given == "permuted":
            self.labels = np.random.default_rng(7).permutation(self.labels)
        elif config.given == "none":
            self.labels, self.classes = None, ()

    def name(self, index: int) -> str:
        return str(index)


@pytest.fixture(autouse=True)
def relabelled(forget_registrations: None) -> None:
    register("dataset", "relabelled")(Relabelled)


def end_of(run: Path, method: str, given: str) -> dict[str, Tensor]:
    """Every weight and buffer after three epochs, the last one with the probe looking on."""
    return state_of(
        trained(
            run,
            f"method={method}",
            "dataset.name=relabelled",
            f"dataset.given={given}",
            "dataset.num_samples=24",
            "hooks.knn_probe.every_epochs=3",
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", SELF_SUPERVISED)
def test_other_labels_or_none_change_no_bit(method: str, tmp_path: Path) -> None:
    own = end_of(tmp_path / "own", method, "own")
    for given in ("permuted", "none"):
        assert not different(own, end_of(tmp_path / given, method, given))


@pytest.mark.slow
def test_the_supervised_baseline_does_learn_from_them(tmp_path: Path) -> None:
    own = end_of(tmp_path / "own", "supervised", "own")
    permuted = end_of(tmp_path / "permuted", "supervised", "permuted")
    changed = different(own, permuted)
    assert any(name.startswith("head.") for name in changed)
    assert any(name.startswith("backbone.") for name in changed)


def test_the_supervised_baseline_refuses_data_without_labels(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no labels"):
        end_of(tmp_path, "supervised", "none")
