"""Trains the small run of `command.TINY` inside the test's own process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests_support.command import TINY
from unlabeled.config.check import build_config
from unlabeled.config.compose import Composed, compose_config
from unlabeled.config.schema import PretrainConfig
from unlabeled.engine.build import build_trainer
from unlabeled.engine.interruption import Interruption
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.engine.trainer import Trainer
from unlabeled.registry import names

METHODS = tuple(names("method"))


@cache
def _composed(world_size: str | None, *overrides: str) -> Composed:
    """Composing takes a tenth of a second, and most tests want what another test had.

    `world_size` is the one variable of the environment that a YAML reads (launch/torchrun.yaml).
    """
    return compose_config("pretrain", [*TINY, *overrides])


def compose_methods() -> None:
    """Of what small runs choose, most choose no more than the method."""
    for method in METHODS:
        _composed(os.environ.get("WORLD_SIZE"), f"method={method}")


def tiny_config(run: Path, *overrides: str) -> PretrainConfig:
    """The typed config of a small run."""
    composed = _composed(os.environ.get("WORLD_SIZE"), *overrides)
    data = deepcopy(composed.data) | {"run": {"dir": str(run)}}
    return build_config(PretrainConfig, data, composed.problems)


def tiny_trainer(run: Path, *overrides: str) -> Trainer:
    """Everything a small run needs, with its directory made; `fit()` trains it in a second."""
    return built(tiny_config(run, *overrides))


def built(config: PretrainConfig) -> Trainer:
    """What a config describes, on the CPU."""
    directory = RunDirectory(config.run.dir)
    directory.create()
    device = torch.device("cpu")
    return build_trainer(config, directory, device, Interruption(device))


def built_from(arguments: Sequence[str]) -> Trainer:
    """What these arguments of `unlabeled pretrain` describe, on the CPU."""
    composed = compose_config("pretrain", arguments)
    return built(build_config(PretrainConfig, composed.data, composed.problems))


def trained(run: Path, *overrides: str) -> Trainer:
    """A small run at its end."""
    trainer = tiny_trainer(run, *overrides)
    trainer.fit()
    return trainer


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    """A copy of every parameter and buffer."""
    return {name: tensor.clone() for name, tensor in trainer.method.state_dict().items()}


def different(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """The names under which two states do not hold the same bits."""
    assert ours.keys() == theirs.keys()
    return [name for name in ours if not torch.equal(ours[name], theirs[name])]
