"""What is written tensor by tensor is what the safetensors library reads and would write."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from tests_support.ranks import run_ranks
from unlabeled.distributed import comm
from unlabeled.distributed.tensor_stream import TYPES, write_tensors


def streamed(tensors: dict[str, Tensor], facts: dict[str, str] | None = None) -> bytes:
    file = io.BytesIO()
    write_tensors(file.write, tensors, facts)
    return file.getvalue()


@pytest.mark.parametrize("dtype", list(TYPES))
def test_every_type_and_shape_comes_back(dtype: torch.dtype) -> None:
    shapes = [(), (0,), (3,), (2, 0, 4), (2, 3, 4)]
    tensors = {f"{n}": (torch.randn(shape) * 10).abs().to(dtype) for n, shape in enumerate(shapes)}
    tensors["turned"] = tensors["4"].transpose(0, 2)
    found = safetensors.torch.load(streamed(tensors))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == dtype
        assert torch.equal(found[name], tensor), name


def test_the_bytes_are_the_library_s_own() -> None:
    tensors = {
        **{name: torch.randn(5, 3) for name in ("b", 'a"quoted"', "c")},
        "count": torch.tensor(7),
        "flags": torch.tensor([True, False, True]),
        "half": torch.randn(3).half(),
    }
    assert streamed(tensors) == safetensors.torch.save(tensors)
    assert streamed({}) == safetensors.torch.save({})


def test_facts_are_metadata(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(streamed({"a": torch.ones(2)}, {"format": "pt", "more": "{}"}))
    with safetensors.safe_open(tmp_path / "file", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "more": "{}"}


def _gathered_at_once(path: str) -> int:
    """Rank 0 writes; the largest piece that it was given."""
    mesh = init_device_mesh("cpu", (comm.world_size(),))
    whole = {str(n): torch.arange(30.0).view(5, 6) + n for n in range(4)}
    tensors = {n: distribute_tensor(t, mesh, [Shard(0)]) for n, t in whole.items()}
    tensors["bias"] = torch.ones(3)
    largest = 0
    with Path(f"{path}{comm.rank()}").open("wb") as file:

        def write(data: bytes | memoryview) -> None:
            nonlocal largest
            largest = max(largest, len(data))
            file.write(data)

        write_tensors(write, tensors)
    return largest


@pytest.mark.slow
def test_shards_are_gathered_one_tensor_at_a_time(tmp_path: Path) -> None:
    pieces = run_ranks(_gathered_at_once, 2, str(tmp_path / "file"))
    header = int.from_bytes((tmp_path / "file0").read_bytes()[:8], "little") + 8
    assert pieces == [max(header, 30 * 4)] * 2
    found = safetensors.torch.load_file(tmp_path / "file0")
    assert torch.equal(found["3"], torch.arange(30.0).view(5, 6) + 3)
    assert torch.equal(found["bias"], torch.ones(3))
    assert len(found) == 5
