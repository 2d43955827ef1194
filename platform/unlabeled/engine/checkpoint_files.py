"""Reading the files of a checkpoint: as data, checked, and no more of them than is needed."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlabeled.distributed import comm
from unlabeled.distributed.rank_rows import RankRows, redistribute
from unlabeled.errors import CheckpointError
from unlabeled.models.backbone_files import UNREADABLE


def rank_file(rank: int) -> str:
    """The name of a rank's own file."""
    return f"rank{rank:04d}.pt"


def shard_file(rank: int) -> str:
    """The name of a rank's file of shards."""
    return f"shards{rank:04d}.safetensors"


def read(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """A file's content, on the CPU; nothing in it can run code.

    mapped: leave tensors on disk until they are used. Their bytes are then not checked.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint file") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused, it is not plain data ({_first_line(error)})"
        ) from error
    except UNREADABLE as error:
        raise _damaged(path, error) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a checkpoint, it holds one {type(content).__name__}")
    return content


def redistributed_buffers(
    folder: Path, rank_buffers: Mapping[str, RankRows], *, written_by: int
) -> dict[str, Tensor]:
    """This rank's share of the buffers that another number of ranks wrote.

    Of the former ranks' files only the rows of this rank are brought into memory; the bytes of
    each are checked by one rank, so all ranks must call this together.
    """
    if not rank_buffers:
        return {}
    files = [folder / rank_file(former) for former in range(written_by)]
    _check_together(files)

    @cache
    def left_by(former: int) -> dict[str, Tensor]:
        buffers: dict[str, Tensor] = read(files[former], mapped=True)["buffers"]
        return buffers

    def own_rows(name: str, rows: RankRows) -> Tensor:
        return redistribute(
            lambda former: left_by(former)[name],
            rows,
            written_by=written_by,
            rank=comm.rank(),
            ranks=comm.world_size(),
        )

    return {name: own_rows(name, rows) for name, rows in rank_buffers.items()}


def _check_together(files: list[Path]) -> None:
    """Raise CheckpointError on every rank if a file is missing or damaged."""
    found: CheckpointError | None = None
    try:
        for path in files[comm.rank() :: comm.world_size()]:
            _check_bytes(path)
    except CheckpointError as error:
        found = error
    # Told to all: a rank that stopped alone would leave the others waiting for it.
    for said in comm.all_gather_objects(str(found) if found else ""):
        if said:
            raise CheckpointError(said) from found


def _check_bytes(path: Path) -> None:
    """Compare every byte with the file's checksums, a piece at a time."""
    try:
        with zipfile.ZipFile(path) as file:  # torch's files are zip files
            torn = file.testzip()
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint file") from error
    except (
        *(OSError, EOFError, ValueError, RuntimeError),
        *(zipfile.BadZipFile, zlib.error, struct.error),
    ) as error:
        raise _damaged(path, error) from error
    if torn:
        raise CheckpointError(f"{path}: damaged or not a checkpoint (bad checksum of {torn})")


def _damaged(path: Path, error: BaseException) -> CheckpointError:
    return CheckpointError(f"{path}: damaged or not a checkpoint ({_first_line(error)})")


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0][:200] or type(error).__name__
