"""Shards on disk are those of torch.distributed.checkpoint, and any number of ranks reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from tests_support.ranks import run_ranks
from unlabeled.distributed import comm
from unlabeled.distributed.shard_files import load_shards, stored_shards, write_shards
from unlabeled.distributed.shards import local, own_rows
from unlabeled.errors import CheckpointError

SHAPES = {"odd/weight": (5, 3), "one.row": (1, 2), "kernel": (4, 2, 3, 3)}


def values() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def sharded(tensors: dict[str, Tensor]) -> dict[str, Any]:
    mesh = init_device_mesh("cpu", (comm.world_size(),))
    return {name: distribute_tensor(t, mesh, [Shard(0)]) for name, t in tensors.items()}


def _write(folder: str, with_torch: bool) -> None:
    shards = sharded(values())
    if with_torch:
        save(shards, storage_writer=HuggingFaceStorageWriter(folder, save_distributed=True))
        if comm.rank() == 0:  # the name by which it is known here
            first = sorted(Path(folder).glob("*.safetensors"))[0]
            first.rename(Path(folder, "shards0000.safetensors"))
        return
    rows = {name: local(tensor) for name, tensor in shards.items()}
    starts = {name: own_rows(len(tensor)).start for name, tensor in shards.items()}
    with Path(folder, f"shards{comm.rank():04d}.safetensors").open("wb") as file:
        write_shards(file.write, rows, starts)


def _reads(folder: str) -> bool:
    expected = values()
    stored = stored_shards(Path(folder))
    assert {n: tuple(t.shape) for n, t in stored.items()} == SHAPES
    own = sharded({name: torch.zeros(shape) for name, shape in SHAPES.items()})
    load_shards(Path(folder), own, together=True)
    alone = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    load_shards(Path(folder), alone, together=False)
    return all(
        torch.equal(own[n].full_tensor(), t) and torch.equal(alone[n], t)
        for n, t in expected.items()
    )


@pytest.mark.slow
@pytest.mark.parametrize("with_torch", [False, True])
def test_any_number_of_ranks_reads_what_three_have_written(
    with_torch: bool, tmp_path: Path
) -> None:
    run_ranks(_write, 3, str(tmp_path), with_torch)
    for ranks in (1, 2, 3, 4):
        assert run_ranks(_reads, ranks, str(tmp_path)) == [True] * ranks


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[:-1], lambda data: data[:40], lambda data: bytes(100)],
)
def test_a_damaged_file_is_said(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "shards0000.safetensors"
    with path.open("wb") as file:
        write_shards(file.write, values(), dict.fromkeys(SHAPES, 0))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match="its shards are damaged") as caught:
        stored_shards(tmp_path)
    assert str(tmp_path) in str(caught.value)
