"""Checkpoints: what is in them, where they lie, and how a run gets its state back.

<run>/checkpoints/<step>/shared.pt   written by rank 0: method, optimizer, scaler, step
                         rank0000.pt one per rank: buffers that differ between ranks, random states
<run>/checkpoints/last               the name of the newest complete one
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unlabeled.distributed import comm
from unlabeled.errors import CheckpointError
from unlabeled.methods.base import Method

FORMAT = 1
SLOTS = ("shared.pt", "optimizer", "state")
"""Where the optimizer's slots (momentum) lie; `optimizer.step` alone changes them in place."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds, on the CPU."""

    path: Path
    shared: dict[str, Any]
    rank: dict[str, Any] | None
    """None when there are no files for this rank."""


def contents(
    *,
    step: int,
    method: Method,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> dict[str, dict[str, Any]]:
    """What this rank writes, by file name; the tensors are the living ones, not copies."""
    state = dict(method.state_dict())
    mine = {name: state.pop(name) for name in method.rank_buffers}
    files: dict[str, dict[str, Any]] = {
        rank_file(comm.rank()): {"buffers": mine, "random": random_state()}
    }
    if comm.rank() == 0:
        files["shared.pt"] = {
            "format": FORMAT,
            "step": step,
            "world_size": comm.world_size(),
            "method": state,
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict(),
        }
    return files


def rank_file(rank: int) -> str:
    """The name of a rank's own file."""
    return f"rank{rank:04d}.pt"


def complete(folder: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    return sorted(p for p in folder.glob("[0-9]*") if (p / "shared.pt").is_file())


def newest(folder: Path) -> Path | None:
    """The checkpoint that `last` names, or else the newest whole one; None if there is none."""
    pointer = folder / "last"
    if pointer.is_file():
        named = folder / pointer.read_text(encoding="utf-8").strip()
        if (named / "shared.pt").is_file():
            return named
    found = complete(folder)
    return found[-1] if found else None


def load(path: Path) -> Checkpoint:
    """Read a checkpoint as data: nothing in it can run code."""
    mine = path / f"rank{comm.rank():04d}.pt"
    shared = _read(path / "shared.pt")
    if shared.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: format {shared.get('format')!r}, this version reads {FORMAT}"
        )
    return Checkpoint(path, shared, _read(mine) if mine.is_file() else None)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint file") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path}: damaged or not a checkpoint ({_first_line(error)})"
        ) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused, it is not plain data ({_first_line(error)})"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a checkpoint, it holds one {type(content).__name__}")
    return content


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0][:200]


def restore(
    checkpoint: Checkpoint,
    *,
    method: Method,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> int:
    """Put a checkpoint back into the objects of this rank; returns its step."""
    written_by = checkpoint.shared["world_size"]
    if written_by != comm.world_size() and method.rank_buffers:
        raise CheckpointError(
            f"{checkpoint.path} was written by {written_by} processes and this run has "
            f"{comm.world_size()}; its queues or banks are stored per process, so continue with "
            f"launch.processes={written_by}"
        )
    rank_state = checkpoint.rank or {"buffers": {}, "random": None}
    state = {**checkpoint.shared["method"], **rank_state["buffers"]}
    describe_mismatch(method.state_dict(), state, origin=str(checkpoint.path))
    method.load_state_dict(state)
    optimizer.load_state_dict(checkpoint.shared["optimizer"])
    scaler.load_state_dict(checkpoint.shared["scaler"])
    if written_by == comm.world_size() and rank_state["random"] is not None:
        set_random_state(rank_state["random"])
    return int(checkpoint.shared["step"])


def describe_mismatch(
    own: Mapping[str, Tensor], other: Mapping[str, Tensor], *, origin: str
) -> None:
    """Raise CheckpointError naming the keys and shapes in which two states differ."""
    missing = [k for k in own if k not in other]
    unexpected = [k for k in other if k not in own]
    shapes = [
        f"{k} {tuple(other[k].shape)} where the model has {tuple(own[k].shape)}"
        for k in own
        if k in other and own[k].shape != other[k].shape
    ]
    parts = [
        f"{len(keys)} {what}: {', '.join(keys[:8])}{', ...' if len(keys) > 8 else ''}"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if keys
    ]
    if parts:
        raise CheckpointError(f"{origin} does not fit this model: " + "; ".join(parts))


def random_state() -> dict[str, Any]:
    """Every global generator of this process."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": {
            "kind": kind,
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "rest": [int(position), int(has_gauss), float(gauss)],
        },
        "python": [version, list(internal), gauss_next],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    position, has_gauss, gauss = state["numpy"]["rest"]
    keys = state["numpy"]["keys"].numpy().astype(np.uint32)
    np.random.set_state((state["numpy"]["kind"], keys, position, has_gauss, gauss))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
