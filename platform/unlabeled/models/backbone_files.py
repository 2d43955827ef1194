"""Backbones on disk: weights that load without this package, with a page that says how."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from unlabeled.distributed import comm
from unlabeled.distributed.tensor_stream import write_tensors
from unlabeled.errors import CheckpointError, EnvironmentProblem
from unlabeled.models.backbone_cards import WEIGHTS_NAME, write_card
from unlabeled.registry import Component

PICKLED = (".pt", ".pth", ".tar", ".torch")
"""Suffixes of torch.save's files; SwAV's published weights end in .pth.tar, VISSL's in .torch."""
UNREADABLE = (
    *(pickle.UnpicklingError, OSError, EOFError, RuntimeError, LookupError, ValueError),
    *(TypeError, AttributeError, AssertionError, OverflowError, struct.error),
)
"""What torch's restricted unpickler raises on damaged bytes, found by trying."""
_PICKLE_HINT = (
    ". A pickle is a program: open it where you trust it and save its tensors with torch.save"
)
_SHOWN = 8
"""Keys of each sort that an error lists."""


def export_backbone(
    backbone: nn.Module,
    component: Component,
    folder: Path,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    image_size: int,
) -> Path:
    """Write `folder`/backbone.safetensors and backbone.json; returns the path of the weights.

    mean and std are those of the training images, in RGB order of pixels scaled to [0, 1];
    image_size is the side of the largest training crop in pixels.
    Each file is written beside and renamed, so a reader meets the old file or the new one and
    never a part. A disk that is full or read-only raises EnvironmentProblem.
    DDP: all ranks call it with the bare backbone, and rank 0 writes; of a sharded backbone one
    tensor at a time is gathered.
    """
    weights = folder / WEIGHTS_NAME
    write_state(weights, backbone.state_dict())
    problem: str | None = None
    if comm.rank() == 0:
        try:
            write_card(weights, backbone, component, mean=mean, std=std, image_size=image_size)
        except EnvironmentProblem as error:
            problem = str(error)
    _raise_together(problem)
    return weights


def write_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """These tensors, bit by bit, as a .safetensors file.

    Written beside and renamed; a disk that is full or read-only raises EnvironmentProblem.
    DDP: all ranks call it, and rank 0 writes; sharded tensors are gathered one at a time.
    """
    problem: str | None = None
    if comm.rank() == 0:
        file = _Beside(path)
        write_tensors(file.write, state)
        problem = file.finish()
    else:
        write_tensors(len, state)
    _raise_together(problem)


def load_backbone_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, on the CPU.

    A file that `read_weights` cannot read, or that is not a flat mapping of names to tensors,
    raises CheckpointError.
    """
    return _flat(path, read_weights(path))


def read_weights(path: Path) -> Any:
    """What a weights file holds, as data, on the CPU; tensors may lie in entries of entries.

    Reads .safetensors, and torch.save's files with weights_only: no code of the file runs. Beside
    tensors and plain values only argparse.Namespace is accepted, in which some projects keep their
    settings. A file that is missing, damaged or of another sort raises CheckpointError.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no weights file {path}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in PICKLED:
        return _read_pickled(path)
    raise CheckpointError(
        f"{path}: unknown kind of weights file {path.suffix!r}; accepted: .safetensors, "
        f"{', '.join(PICKLED)}{_PICKLE_HINT if path.suffix in ('.pkl', '.pickle') else ''}"
    )


def load_into(backbone: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Copy `state` into the backbone, or leave it as it was where `check_fit` objects."""
    check_fit(backbone, state, origin)
    backbone.load_state_dict(dict(state), strict=True)


def check_fit(backbone: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """CheckpointError that lists what differs, unless every name and shape of `state` agrees.

    `origin` is where the weights come from, for the message.
    """
    own = backbone.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    differing = [
        f"{name} {list(state[name].shape)} instead of {list(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    faults = [
        _listed("missing", missing),
        _listed("unexpected", unexpected),
        _listed("of another shape", differing),
    ]
    if any(faults):
        fitting = len(own) - len(missing) - len(differing)
        raise CheckpointError(
            f"the weights of {origin} do not fit the backbone ({type(backbone).__name__}, "
            f"feature_dim {backbone.feature_dim}), {fitting} of its {len(own)} tensors match:\n"
            + "\n".join(filter(None, faults))
            + "\n"
            "Choose the backbone that they were trained with."
        )


def _raise_together(problem: str | None) -> None:
    """Raise what any rank met on every one: who ended alone would leave the others waiting."""
    for said in comm.all_gather_objects(problem):
        if said:
            raise EnvironmentProblem(said)


class _Beside:
    """A file that gets its name when it is whole; what goes wrong waits for the end.

    For other ranks take part in what is written, and would wait for one that stopped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.{os.getpid()}")
        self._file: BinaryIO | None = None
        self._error: OSError | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Write, unless an earlier write failed."""
        if self._error is not None:
            return
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._part.open("wb")
            self._file.write(data)
        except OSError as error:
            self._error = error

    def finish(self) -> str | None:
        """Flush to the disk and rename over the last file; what went wrong, or None."""
        try:
            if self._file is not None:
                with self._file:
                    self._file.flush()
                    os.fsync(self._file.fileno())
            if self._error is not None:
                raise self._error
            os.replace(self._part, self._path)
        except OSError as error:
            with suppress(OSError):
                self._part.unlink()
            return f"cannot write {self._path}: {error}; free some space or choose another run.dir"
        return None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def _read_pickled(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    refused = re.search(r"GLOBAL ([\w.]+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and refused:
        return CheckpointError(
            f"cannot read the weights {path} as data: beside tensors and plain values it holds "
            f"{refused[1]}, and what is not data could run code. Open it where you trust it and "
            "save its tensors alone with torch.save"
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(
        f"cannot read the weights {path}: {reason}; the file is damaged or of another sort, "
        "fetch or export it again"
    )


def _flat(path: Path, content: Any) -> dict[str, Tensor]:
    """`content` if it maps names to tensors."""
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: expected names and tensors, got {type(content).__name__}")
    others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(
            f"{path}: expected tensors alone, but {_listed('other entries', others)}; "
            "save the backbone's own state dict as a flat mapping of names to tensors"
        )
    return {str(name): tensor for name, tensor in content.items()}


def _listed(what: str, names: list[str]) -> str:
    """`what (count): first names`, or nothing."""
    if not names:
        return ""
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{what} ({len(names)}): {', '.join(names[:_SHOWN])}{more}"
