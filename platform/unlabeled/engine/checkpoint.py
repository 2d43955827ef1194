"""Checkpoints: what is in them, where they lie, and how a run gets its state back.

<run>/checkpoints/<step>/shared.pt   written by rank 0: method, optimizer, scaler, step, the
                             losses of the round, and which data it was trained on
                         rank0000.pt one per rank: buffers that differ between ranks, random
                             states, meters
                         shards0000.safetensors one per rank: its rows of what the ranks divide
                             among them, if they do (`sharding`); then shared.pt lacks it
<run>/checkpoints/last               the name of the newest complete one

Another number of ranks may continue: they divide the rows of those buffers anew, and draw random
numbers of their own.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unlabeled.data.randomness import mix
from unlabeled.distributed import comm
from unlabeled.distributed.shards import is_sharded
from unlabeled.engine.checkpoint_files import (
    rank_file,
    read,
    redistributed_buffers,
    shard_file,
)
from unlabeled.engine.checkpoint_shards import (
    load_method,
    load_optimizer,
    shard_content,
    stored_method,
    take_shards,
    whole_shards,
)
from unlabeled.engine.data_identity import DataIdentity
from unlabeled.engine.round import Round
from unlabeled.engine.snapshot import Place
from unlabeled.errors import CheckpointError
from unlabeled.methods.base import Method

FORMAT = 2


@dataclass(frozen=True)
class Checkpoint:
    """What the ranks share, on the CPU, and where the rest lies."""

    path: Path
    shared: dict[str, Any]

    @property
    def written_by(self) -> int:
        """How many ranks wrote it."""
        return int(self.shared["world_size"])

    @property
    def evaluated(self) -> str:
        """Which submodule of the method is measured; files older than teachers do not say."""
        return str(self.shared.get("evaluated", "backbone"))

    @property
    def data(self) -> DataIdentity | None:
        """What was trained on; older files do not say."""
        stored = self.shared.get("data")
        return DataIdentity(**stored) if stored else None


def contents(
    *,
    step: int,
    method: Method,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    data: DataIdentity,
    present: Round,
) -> dict[str, dict[str, Any]]:
    """What this rank writes, by file name; the tensors are the living ones, not copies."""
    state, optimizer_state = dict(method.state_dict()), optimizer.state_dict()
    mine = {name: state.pop(name) for name in method.rank_buffers}
    slots = {number: dict(slot) for number, slot in optimizer_state["state"].items()}
    of_method, of_slots = take_shards(state, slots)
    files: dict[str, dict[str, Any]] = {
        rank_file(comm.rank()): {
            "buffers": mine,
            "random": random_state(),
            "meters": present.of_rank(),
        }
    }
    if of_method:
        files[shard_file(comm.rank())] = shard_content(of_method, of_slots)
    if comm.rank() == 0:
        files["shared.pt"] = {
            "format": FORMAT,
            "step": step,
            "world_size": comm.world_size(),
            "blocks": {name: rows.block for name, rows in method.rank_buffers.items()},
            "evaluated": method.evaluated,
            "method": state,
            "optimizer": {**optimizer_state, "state": slots},
            "scaler": scaler.state_dict(),
            "data": asdict(data),
            "losses": present.losses,
        }
    return files


def changed_by_step(method: Method) -> frozenset[Place]:
    """The places in `contents` whose tensors `optimizer.step` alone changes, by far the most bytes.

    The optimizer's slots (momentum), and the parameters of the backbone.
    """
    shards = shard_file(comm.rank())
    places: set[Place] = {("shared.pt", "optimizer", "state")}
    for name, parameter in method.backbone.named_parameters():
        file = shards if is_sharded(parameter) else "shared.pt"
        places.add((file, "method", f"backbone.{name}"))
    if any(is_sharded(parameter) for parameter in method.parameters()):
        places.add((shards, "optimizer", "state"))
    return frozenset(places)


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
    """Read what all ranks share, as data: nothing in it can run code."""
    shared = read(path / "shared.pt")
    if shared.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: format {shared.get('format')!r}, this version reads {FORMAT}; use "
            "the version that wrote it"
        )
    return Checkpoint(path, shared)


def restore(
    checkpoint: Checkpoint,
    *,
    method: Method,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    present: Round,
) -> int:
    """Put a checkpoint back into the objects of this rank; returns its step.

    As many ranks as wrote it continue bit for bit. Of any other number each takes its rows of the
    buffers that differ between ranks, and draws random numbers that are a function of (seed, step,
    rank). All ranks must call this together.
    """
    _check_blocks(checkpoint, method)
    step = int(checkpoint.shared["step"])
    if checkpoint.written_by == comm.world_size():
        own = read(checkpoint.path / rank_file(comm.rank()))
        buffers, random_numbers, of_rank = own["buffers"], own["random"], own.get("meters")
    else:
        buffers = redistributed_buffers(
            checkpoint.path, method.rank_buffers, written_by=checkpoint.written_by
        )
        random_numbers = of_rank = None
    state = {**checkpoint.shared["method"], **buffers}
    stored = {**state, **stored_method(checkpoint.path)}
    describe_mismatch(method.state_dict(), stored, origin=str(checkpoint.path))
    load_method(checkpoint.path, method, state)
    load_optimizer(checkpoint.path, optimizer, checkpoint.shared["optimizer"])
    scaler.load_state_dict(checkpoint.shared["scaler"])
    present.load(checkpoint.shared.get("losses", ()), of_rank)  # older files have neither
    if random_numbers is None:
        seed_random_state(mix(method.facts.seed, step, comm.rank()))
    else:
        set_random_state(random_numbers)
    return step


def method_state(checkpoint: Checkpoint, prefix: str = "") -> dict[str, Tensor]:
    """What the ranks share of the method, whole: the tensors whose names begin with `prefix`."""
    shared = {k: t for k, t in checkpoint.shared["method"].items() if k.startswith(prefix)}
    return {**shared, **whole_shards(checkpoint.path, prefix)}


def _check_blocks(checkpoint: Checkpoint, method: Method) -> None:
    """Rows that were pushed together must be those that would be pushed together now."""
    for name, rows in method.rank_buffers.items():
        block = checkpoint.shared["blocks"].get(name, rows.block)
        if block != rows.block:
            raise CheckpointError(
                f"{checkpoint.path}: {name} was filled by micro-batches of {block} images over all "
                f"processes, and this run has {rows.block}; continue with the batch_size and the "
                "accumulate_steps of the run that wrote it"
            )


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


def seed_random_state(word: int) -> None:
    """Start every global generator of this process anew, from one 64-bit word."""
    torch.manual_seed(word)
    np.random.seed(word % 2**32)
    random.seed(word)
