"""Ranks that wrote no checkpoint find their rows in it, bit for bit, or say what is wrong."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests_support.in_process import different, state_of, tiny_trainer
from tests_support.ranks import run_ranks
from unlabeled.distributed import comm
from unlabeled.engine import checkpoint
from unlabeled.engine.checkpoint_files import read
from unlabeled.engine.trainer import Trainer
from unlabeled.errors import CheckpointError

WITH_ROWS = {
    # Micro-batches of 6 images, two of them a step, and 5 steps: the queue has been full for long.
    "swav": ("method=swav", "method.queue_start_epoch=0", "method.queue_samples=24"),
    "deepcluster_v2": ("method=deepcluster_v2",),
    "sela_v2": ("method=sela_v2",),
}
MICRO_BATCH = 6


def trainer_of(folder: Path, *overrides: str) -> Trainer:
    own = ("hooks.knn_probe=null", "max_steps=5", f"launch.processes={comm.world_size()}")
    return tiny_trainer(folder, "accumulate_steps=2", *overrides, *own)


def restored(trainer: Trainer, path: Path) -> int:
    return checkpoint.restore(
        checkpoint.load(path),
        method=trainer.method,
        optimizer=trainer.optimizer,
        scaler=trainer.precision.scaler,
        present=trainer.round,
    )


def _trains(folder: str, *overrides: str) -> None:
    trainer_of(Path(folder), *overrides).fit()


def written_by(ranks: int, folder: Path, *overrides: str) -> Path:
    run_ranks(_trains, ranks, str(folder), *overrides)
    newest = checkpoint.newest(folder / "checkpoints")
    assert newest is not None
    return newest


def _restores(path: str, folder: str, *overrides: str) -> dict[str, Any]:
    """What this rank has of its own, where the rest differs from the file, and what it draws."""
    trainer = trainer_of(Path(folder), "seed=3", *overrides)
    step = restored(trainer, Path(path))
    state, shared = state_of(trainer), read(Path(path, "shared.pt"))
    assert step == shared["step"]
    own = {name: state.pop(name) for name in trainer.method.rank_buffers}
    wrong = different(state, shared["method"])
    slots = trainer.optimizer.state_dict()["state"]
    for number, slot in shared["optimizer"]["state"].items():
        wrong += different(slot, slot | slots[number])
    assert slots.keys() == shared["optimizer"]["state"].keys()
    draws = [float(torch.rand(())), float(np.random.rand()), random.random()]
    return {"own": own, "wrong": wrong, "draws": draws}


def in_one_process(buffers: list[Tensor]) -> list[Tensor]:
    """The rows of a buffer, one after the other as one process would hold them."""
    row_lists = [list(b if b.dim() == 1 else b.transpose(0, 1)) for b in buffers]
    rows: list[Tensor] = []
    while any(row_lists):
        for held in row_lists:
            for _ in range(MICRO_BATCH // len(buffers)):
                rows.append(held.pop(0))
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("method", WITH_ROWS)
def test_every_rank_finds_its_rows_and_all_that_is_shared(method: str, tmp_path: Path) -> None:
    overrides = WITH_ROWS[method]
    path = written_by(2, tmp_path / "run", *overrides)
    files = [read(path / f"rank000{rank}.pt")["buffers"] for rank in (0, 1)]
    for ranks in (1, 3):
        found = run_ranks(_restores, ranks, str(path), str(tmp_path / str(ranks)), *overrides)
        assert [result["wrong"] for result in found] == [[]] * ranks
        for name in files[0]:
            left = in_one_process([file[name] for file in files])
            now = in_one_process([result["own"][name] for result in found])
            assert len({str(row.tolist()) for row in left}) > len(left) // 2  # told apart
            assert torch.equal(torch.stack(now), torch.stack(left))


@pytest.mark.slow
def test_other_ranks_draw_what_seed_step_and_rank_say(tmp_path: Path) -> None:
    path = written_by(2, tmp_path / "run", "method=simclr")

    def draws(ranks: int, *overrides: str) -> list[tuple[float, ...]]:
        found = run_ranks(_restores, ranks, str(path), str(tmp_path / "o"), *overrides)
        return [tuple(result["draws"]) for result in found]

    three = draws(3, "method=simclr")
    assert draws(3, "method=simclr") == three
    assert draws(1, "method=simclr") == three[:1]
    assert not set(draws(3, "method=simclr", "seed=4")) & set(three)
    as_before = draws(2, "method=simclr")  # their own states, whatever the seed
    assert draws(2, "method=simclr", "seed=4") == as_before
    torch.save(read(path / "shared.pt") | {"step": 4}, path / "shared.pt")
    earlier = draws(3, "method=simclr")
    every = [number for rank in [*three, *as_before, *earlier] for number in rank]
    assert len(set(every)) == len(every)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_by(2, tmp_path_factory.mktemp("run"), *WITH_ROWS["swav"])


@pytest.fixture
def copy(two_ranks: Path, tmp_path: Path) -> Path:
    """A checkpoint of two ranks that the test may spoil."""
    return Path(shutil.copytree(two_ranks, tmp_path / "copy"))


@pytest.fixture
def alone(tmp_path: Path) -> Trainer:
    return trainer_of(tmp_path / "alone", *WITH_ROWS["swav"])


def _flipped(data: bytes, place: int) -> bytes:
    """One bit is wrong: no reader stumbles over it, only the checksum tells."""
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGES = {
    "gone": None,
    "empty": lambda data: b"",
    "one byte short": lambda data: data[:-1],
    "first bytes gone": lambda data: data[64:],
    "zeros": lambda data: bytes(len(data)),
    "middle overwritten": lambda data: data[:1000] + b"\xff" * 400 + data[1400:],
    "one bit": lambda data: _flipped(data, len(data) // 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_a_former_rank_is_named(damage: str, copy: Path, alone: Trainer) -> None:
    file, change, before = copy / "rank0001.pt", DAMAGES[damage], state_of(alone)
    if change is None:
        file.unlink()
    else:
        file.write_bytes(change(file.read_bytes()))
    with pytest.raises(CheckpointError) as caught:
        restored(alone, copy)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not different(before, state_of(alone))  # nothing was put in half


def _refused(path: str, folder: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        restored(trainer_of(Path(folder), *WITH_ROWS["swav"]), Path(path))
    return str(caught.value)


@pytest.mark.slow
def test_all_ranks_stop_where_one_of_them_finds_a_damage(copy: Path, tmp_path: Path) -> None:
    (copy / "rank0001.pt").write_bytes(b"")
    said = run_ranks(_refused, 3, str(copy), str(tmp_path / "three"))
    assert len(set(said)) == 1
    assert str(copy / "rank0001.pt") in said[0]


class Runs:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.slow
def test_code_of_a_former_rank_is_refused_and_not_run(copy: Path, alone: Trainer) -> None:
    trace = copy / "it-ran"
    torch.save({"buffers": Runs(trace)}, copy / "rank0001.pt")
    with pytest.raises(CheckpointError, match="refused, it is not plain data"):
        restored(alone, copy)
    assert not trace.exists()


@pytest.mark.slow
def test_rows_of_other_micro_batches_are_refused(two_ranks: Path, tmp_path: Path) -> None:
    for number, change in enumerate(("accumulate_steps=1", "batch_size=24")):
        other = trainer_of(tmp_path / str(number), *WITH_ROWS["swav"], change)
        with pytest.raises(CheckpointError, match=r"micro-batches of 6 images .* this run has 12"):
            restored(other, two_ranks)


@pytest.mark.slow
def test_without_rows_of_their_own_ranks_need_no_former_file(tmp_path: Path) -> None:
    """Neither do other micro-batches matter: each step has the same images."""
    path = written_by(2, tmp_path / "run", "method=simclr")
    for file in path.glob("rank*"):
        file.unlink()
    other = trainer_of(tmp_path / "other", "method=simclr", "accumulate_steps=1")
    assert restored(other, path) == 5
    assert not different(state_of(other), read(path / "shared.pt")["method"])
