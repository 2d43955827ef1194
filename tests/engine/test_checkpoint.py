"""The last good checkpoint survives everything, and a file is data: it is checked and never run."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests_support.command import ROOT, TINY
from tests_support.in_process import different, state_of, tiny_config, tiny_trainer
from tests_support.ranks import run_ranks
from tests_support.saving import saved
from unlabeled.engine import checkpoint
from unlabeled.engine.pretrain import pretrain
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.engine.trainer import Trainer
from unlabeled.errors import CheckpointError, EnvironmentProblem

FAST = ("hooks.knn_probe=null", "max_steps=2")


def restored(trainer: Trainer, path: Path) -> int:
    return checkpoint.restore(
        checkpoint.load(path),
        method=trainer.method,
        optimizer=trainer.optimizer,
        scaler=trainer.precision.scaler,
        present=trainer.round,
    )


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return tiny_trainer(tmp_path / "run", *FAST)


@pytest.mark.slow
def test_what_was_saved_comes_back(trainer: Trainer, tmp_path: Path) -> None:
    trainer.fit()
    end, slots = state_of(trainer), trainer.optimizer.state_dict()["state"]
    path = saved(trainer, 2)
    other = tiny_trainer(tmp_path / "other", "seed=1", *FAST)
    assert different(end, state_of(other))
    assert restored(other, path) == 2
    assert not different(end, state_of(other))
    for number, slot in other.optimizer.state_dict()["state"].items():
        assert not different(slot, slots[number])


def test_the_newest_ones_stay(trainer: Trainer) -> None:
    for step in range(1, 6):
        saved(trainer, step, keep=3)
    folder = trainer.run.checkpoints
    assert [path.name for path in checkpoint.complete(folder)] == [f"{n:08d}" for n in (3, 4, 5)]
    assert sorted(p.name for p in folder.iterdir()) == ["00000003", "00000004", "00000005", "last"]
    assert checkpoint.newest(folder) == folder / "00000005"


def test_what_was_just_written_stays_beside_later_steps(trainer: Trainer) -> None:
    """Of the branch that was left when an older checkpoint was named."""
    for step in (200, 300, 140, 150, 160):
        saved(trainer, step, keep=2)
    folder = trainer.run.checkpoints
    assert [int(path.name) for path in checkpoint.complete(folder)] == [150, 160, 200, 300]
    assert checkpoint.newest(folder) == folder / "00000160"


def test_saving_a_step_again_replaces_it(trainer: Trainer) -> None:
    saved(trainer, 1)
    trainer.fit()
    path = saved(trainer, 1)
    again = tiny_trainer(trainer.run.path, *FAST)
    restored(again, path)
    assert not different(state_of(again), state_of(trainer))


def test_an_interrupted_write_is_no_checkpoint_and_does_not_disturb_the_next(
    trainer: Trainer,
) -> None:
    good = saved(trainer, 1)
    folder = trainer.run.checkpoints
    torn = folder / ".00000002.incomplete"
    torn.mkdir()
    (torn / "shared.pt").write_bytes(b"half")
    (torn / "left_over").write_bytes(b"")
    (folder / "00000003").mkdir()  # a folder without its shared file
    assert checkpoint.complete(folder) == [good]
    assert checkpoint.newest(folder) == good
    assert sorted(p.name for p in saved(trainer, 2).iterdir()) == ["rank0000.pt", "shared.pt"]
    assert not torn.exists()


@pytest.mark.parametrize("pointer", [None, "00000009\n", "", "../..\n"])
def test_a_pointer_that_leads_nowhere_is_passed_over(trainer: Trainer, pointer: str | None) -> None:
    saved(trainer, 1)
    newest = saved(trainer, 2)
    last = trainer.run.checkpoints / "last"
    if pointer is None:
        last.unlink()
    else:
        last.write_text(pointer)
    assert checkpoint.newest(trainer.run.checkpoints) == newest


def test_a_run_that_saved_nothing_has_none(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.newest(tmp_path / "missing") is None


DAMAGES = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "first bytes gone": lambda data: data[64:],
    "zeros": lambda data: bytes(len(data)),
    "text": lambda data: b"<html>not found</html>",
    "middle overwritten": lambda data: data[:1000] + b"\xff" * 400 + data[1400:],
}


@pytest.mark.parametrize("damage", list(DAMAGES))
@pytest.mark.parametrize("file", ["shared.pt", "rank0000.pt"])
def test_a_damaged_file_is_said_and_named(trainer: Trainer, damage: str, file: str) -> None:
    path = saved(trainer, 1)
    (path / file).write_bytes(DAMAGES[damage]((path / file).read_bytes()))
    with pytest.raises(CheckpointError) as caught:
        restored(trainer, path)
    assert str(path / file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_first_byte_ends_in_a_traceback(trainer: Trainer) -> None:
    """Torch takes what does not begin as an archive for a file of its first versions."""
    path = saved(trainer, 1)
    whole = (path / "shared.pt").read_bytes()
    for byte in range(256):
        if byte != whole[0]:
            (path / "shared.pt").write_bytes(bytes([byte]) + whole[1:])
            with pytest.raises(CheckpointError):
                checkpoint.load(path)


@pytest.mark.parametrize("content", [{"format": 1}, {"format": 3}, {}, {"state_dict": {}}])
def test_a_file_of_another_format_says_which_one_is_read(
    trainer: Trainer, content: dict[str, Any]
) -> None:
    path = saved(trainer, 1)
    torch.save(content, path / "shared.pt")
    with pytest.raises(CheckpointError, match="this version reads 2; use"):
        checkpoint.load(path)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), "text", None])
def test_a_file_that_holds_no_mapping_is_refused(trainer: Trainer, content: Any) -> None:
    path = saved(trainer, 1)
    torch.save(content, path / "shared.pt")
    with pytest.raises(CheckpointError, match=str(path)):
        checkpoint.load(path)


def test_a_missing_file_is_named(trainer: Trainer) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        checkpoint.load(trainer.run.checkpoints / "00000007")
    path = saved(trainer, 1)
    (path / "rank0000.pt").unlink()
    with pytest.raises(CheckpointError, match=r"rank0000\.pt: no such checkpoint file"):
        restored(trainer, path)


class Runs:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("file", ["shared.pt", "rank0000.pt"])
def test_code_in_a_checkpoint_is_refused_and_not_run(
    trainer: Trainer, tmp_path: Path, file: str
) -> None:
    path, trace = saved(trainer, 1), tmp_path / "it-ran"
    torch.save({"format": 2, "method": Runs(trace), "buffers": Runs(trace)}, path / file)
    with pytest.raises(CheckpointError, match="refused, it is not plain data"):
        restored(trainer, path)
    assert not trace.exists()
    torch.load(path / file, weights_only=False)  # the trap does work
    assert trace.exists()


@pytest.mark.slow
def test_another_architecture_is_told_by_keys_and_shapes(tmp_path: Path) -> None:
    small = tiny_trainer(tmp_path / "small", *FAST)
    wide = tiny_trainer(tmp_path / "wide", *FAST, "backbone.width=0.25")
    deep = tiny_trainer(tmp_path / "deep", *FAST, "head.num_hidden_layers=2")
    path, before = saved(small, 1), state_of(wide)
    with pytest.raises(CheckpointError) as caught:
        restored(wide, path)
    assert "of another shape: " in str(caught.value)
    assert "backbone.layer1.0.bn1.weight (8,) where the model has (16,)" in str(caught.value)
    assert not different(before, state_of(wide))  # nothing was put in half
    with pytest.raises(CheckpointError, match=r"missing: head\.mlp\."):
        restored(deep, path)
    with pytest.raises(CheckpointError, match=r"unexpected: head\.mlp\."):
        restored(small, saved(deep, 1))


def draws() -> list[float]:
    """A number of every global generator."""
    return [
        float(torch.rand(())),
        float(np.random.rand()),
        float(np.random.randn()),
        random.random(),
    ]


def test_random_states_come_back(tmp_path: Path) -> None:
    torch.manual_seed(3)
    np.random.seed(4)
    random.seed(5)
    np.random.randn()  # leaves a second normal number in store
    torch.save(checkpoint.random_state(), tmp_path / "state.pt")
    first = draws()
    assert draws() != first
    checkpoint.set_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draws() == first


def test_a_restored_run_draws_what_it_would_have_drawn(trainer: Trainer) -> None:
    path = saved(trainer, 1)
    first = draws()
    assert draws() != first
    restored(trainer, path)
    assert draws() == first


def _saves_on_two_ranks(folder: str, queue: str) -> tuple[list[str], str]:
    """What rank 0 and 1 leave, and whether they find it again."""
    overrides = [*FAST, queue, "method.queue_start_epoch=0", "launch.processes=2"]
    trainer = tiny_trainer(Path(folder), *overrides)
    trainer.fit()
    path = saved(trainer, 2)
    end = state_of(trainer)
    again = tiny_trainer(Path(folder), *overrides)
    restored(again, path)
    return sorted(p.name for p in path.iterdir()), str(different(end, state_of(again)))


@pytest.mark.slow
def test_every_rank_keeps_what_is_its_own(tmp_path: Path) -> None:
    """With a queue, which differs between ranks."""
    results = run_ranks(_saves_on_two_ranks, 2, str(tmp_path), "method.queue_samples=24")
    assert results == [(["rank0000.pt", "rank0001.pt", "shared.pt"], "[]")] * 2
    path = checkpoint.newest(tmp_path / "checkpoints")
    assert path is not None
    files = [torch.load(path / f"rank000{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert different(files[0]["buffers"], files[1]["buffers"])


def _saves_where_rank_1_cannot(folder: str) -> str:
    from unlabeled.distributed import comm

    trainer = tiny_trainer(Path(folder), *FAST, "launch.processes=2")
    saved(trainer, 1)
    if comm.rank() == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    try:
        saved(trainer, 2)
    except EnvironmentProblem as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return "it was written"


@pytest.mark.slow
def test_a_rank_that_cannot_write_makes_all_ranks_keep_the_last_good_one(tmp_path: Path) -> None:
    said = run_ranks(_saves_where_rank_1_cannot, 2, str(tmp_path))
    assert said[0] == said[1]
    assert "rank0001.pt: File too large" in said[0]
    folder = tmp_path / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == ["00000001", "last"]
    checkpoint.load(folder / "00000001")


@pytest.mark.slow
def test_a_large_queue_that_does_not_fit_publishes_nothing(tmp_path: Path) -> None:
    """Rank 0's own file fails while the shared one, written after it, would have had room."""
    queue = ("method.queue_samples=120000", "method.queue_start_epoch=0")
    trainer = tiny_trainer(tmp_path / "run", *queue)
    good = saved(trainer, 1)
    shared, own = ((good / name).stat().st_size for name in ("shared.pt", "rank0000.pt"))
    assert own > 2 * shared
    no_limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * shared, resource.RLIM_INFINITY))
    try:
        with pytest.raises(EnvironmentProblem, match=r"rank0000\.pt"):
            saved(trainer, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, no_limit)
    assert checkpoint.newest(trainer.run.checkpoints) == good
    assert checkpoint.complete(trainer.run.checkpoints) == [good]


def limited(run: Path, limit: int) -> subprocess.CompletedProcess[str]:
    """A run that may write no file of more than `limit` bytes, as on a disk that is full."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "unlabeled", "pretrain", *TINY, f"run.dir={run}"),
            *("checkpoint.every_steps=2", "hooks.knn_probe=null"),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT / "platform")},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=240,
    )


def one_line(stderr: str) -> str:
    (line,) = stderr.splitlines()
    assert line.startswith("unlabeled: ")
    return line


@pytest.mark.slow
def test_a_full_disk_ends_the_run_in_one_line_and_the_last_good_one_continues_it(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    pretrain(tiny_config(run, *FAST, "checkpoint.every_steps=2"), torch.device("cpu"))
    stopped = limited(run, 100_000)  # room for the logs, and not for 1.4 MB of weights
    assert stopped.returncode == 5
    assert "checkpoint of step 4 was not written (shared.pt: File too large)" in one_line(
        stopped.stderr
    )
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["00000002", "last"]
    pretrain(tiny_config(run, "checkpoint.every_steps=2"), torch.device("cpu"))
    steps = [r["step"] for r in RunDirectory(run).metrics() if r["phase"] == "train"]
    assert sorted(steps) == list(range(1, 13))
    assert checkpoint.newest(run / "checkpoints") == run / "checkpoints" / "00000012"


@pytest.mark.slow
def test_no_room_for_the_logs_is_one_line_as_well(tmp_path: Path) -> None:
    stopped = limited(tmp_path / "run", 5_000)
    assert stopped.returncode == 5
    assert "File too large" in one_line(stopped.stderr)
