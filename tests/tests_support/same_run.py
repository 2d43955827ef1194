"""Whether two runs computed the same, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlabeled.engine import checkpoint
from unlabeled.engine.checkpoint_files import read
from unlabeled.engine.run_directory import RunDirectory


def losses(run: Path) -> dict[int, float]:
    """The loss of every step, by its number."""
    return {r["step"]: r["loss"] for r in RunDirectory(run).metrics() if r["phase"] == "train"}


def rounds(run: Path) -> dict[int, dict[str, Any]]:
    """What is recorded at the ends of epochs, by their steps: losses, meters and probes."""
    return {r["step"]: r for r in RunDirectory(run).metrics() if r["phase"] == "epoch"}


def tensors(value: Any, path: str = "") -> dict[str, Tensor]:
    """Every tensor of a checkpoint by its path."""
    if isinstance(value, Tensor):
        return {path: value}
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    found: dict[str, Tensor] = {}
    for key, item in items:
        found.update(tensors(item, f"{path}/{key}"))
    return found


def final_state(run: Path) -> dict[str, Tensor]:
    """Every tensor of a run's newest checkpoint."""
    newest = checkpoint.newest(run / "checkpoints")
    assert newest is not None
    return tensors({file.name: read(file) for file in newest.glob("*.pt")})


def assert_same_run(killed: Path, alone: Path, steps: int) -> None:
    """Both runs have the losses of all steps and the numbers of all epochs, and the same end.

    All bit for bit. One that was stopped has a record there too; probes may differ.
    """
    assert losses(killed) == losses(alone)
    found = rounds(killed)
    for step, wanted in rounds(alone).items():
        shared = found[step].keys() & wanted.keys()
        assert {"loss", "rank_me"} <= shared
        assert {key: found[step][key] for key in shared} == {key: wanted[key] for key in shared}
    assert set(losses(alone)) == set(range(1, steps + 1))
    ours, theirs = final_state(killed), final_state(alone)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different
