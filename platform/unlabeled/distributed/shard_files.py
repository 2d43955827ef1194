"""Shards on disk: one safetensors file a rank, as torch.distributed.checkpoint lays them out.

Each file says of every tensor in it where its rows begin, so any number of ranks reads from them
what it needs, and one process whole tensors. Nothing in them can run code.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from unlabeled.distributed import comm
from unlabeled.distributed.tensor_stream import write_tensors
from unlabeled.errors import CheckpointError


def write_shards(
    write: Callable[[bytes | memoryview], object],
    rows: Mapping[str, Tensor],
    first_row: Mapping[str, int],
) -> None:
    """Write the file of a rank that holds `rows` of tensors, from row `first_row` of each on."""
    held = {name: tensor for name, tensor in rows.items() if len(tensor)}
    offsets = {n: {"saved_offsets": [first_row[n]] + [0] * (t.ndim - 1)} for n, t in held.items()}
    facts = {"DCP_SHARDING_INFO": json.dumps(offsets), "DCP_VERSION": "1.0", "format": "pt"}
    write_tensors(write, held, facts)


def stored_shards(folder: Path) -> dict[str, Tensor]:
    """The sharded tensors of a checkpoint by name: whole shapes and types, on the meta device."""
    with _readable(folder):
        found = HuggingFaceStorageReader(path=str(folder)).read_metadata().state_dict_metadata
    return {
        name: torch.empty(about.size, dtype=about.properties.dtype, device="meta")
        for name, about in found.items()
        if isinstance(about, TensorStorageMetadata)
    }


def load_shards(folder: Path, into: Mapping[str, Tensor], *, together: bool) -> None:
    """Fill the tensors `into`, sharded or whole, with what `folder` holds under their names.

    Names and shapes are among `stored_shards`. together: all ranks call this, each for its own
    rows; else this rank alone, and the tensors are whole.
    """
    if not into:
        return
    alone = not together or comm.world_size() == 1
    with _readable(folder), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        reader = HuggingFaceStorageReader(path=str(folder))
        load(dict(into), storage_reader=reader, no_dist=alone)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, json.JSONDecodeError, KeyError) as error:
        raise CheckpointError(f"{folder}: its shards are damaged ({error})") from error
    except CheckpointException as error:
        reason = next(iter(error.failures.values()))[0]
        raise CheckpointError(f"{folder}: its shards are damaged ({reason})") from error
