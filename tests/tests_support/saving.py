"""Checkpoints of a trainer, and what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlabeled.engine import checkpoint
from unlabeled.engine.background_writer import BackgroundWriter
from unlabeled.engine.trainer import Trainer

# A queue of 64 MB, so that writing takes long beside a step.
LARGE = ("hooks.knn_probe=null", "method.queue_samples=1000000", "method.queue_start_epoch=0")


def tensors(value: Any, place: str = "") -> dict[str, Tensor]:
    """Every tensor of nested dicts and lists, by its place; other values as tensors of text."""
    if isinstance(value, Tensor):
        return {place: value}
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: t for key, item in items for k, t in tensors(item, f"{place}/{key}").items()}
    return {place: torch.tensor(list(repr(value).encode()))}


def written(path: Path) -> dict[str, Tensor]:
    """All that a checkpoint holds."""
    return tensors(
        {p.name: torch.load(p, weights_only=True) for p in path.iterdir() if p.suffix == ".pt"}
    )


def writer_of(trainer: Trainer, keep: int = 2) -> BackgroundWriter:
    """Of the trainer's run; to be closed."""
    return BackgroundWriter(
        trainer.run.checkpoints,
        trainer.optimizer,
        later=checkpoint.changed_by_step(trainer.method),
        keep=keep,
    )


def saved(trainer: Trainer, step: int, keep: int = 2) -> Path:
    """A checkpoint of the trainer as it is now, in its place."""
    writer = writer_of(trainer, keep)
    try:
        path = writer.save(step, contents_of(trainer, step))
        writer.wait()
    finally:
        writer.close()
    return path


def contents_of(trainer: Trainer, step: int) -> dict[str, dict[str, Any]]:
    """The files of this rank, by name; their tensors are the trainer's own."""
    return checkpoint.contents(
        step=step,
        method=trainer.method,
        optimizer=trainer.optimizer,
        scaler=trainer.precision.scaler,
        data=trainer.data.identity,
        present=trainer.round,
    )


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())
