"""Whatever fails while a checkpoint is on its way to the disk, the last good one stays."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests_support.command import TINY, started, unlabeled
from tests_support.in_process import different, tiny_trainer
from tests_support.ranks import run_ranks
from tests_support.saving import LARGE, contents_of, names, writer_of, written
from unlabeled.distributed import comm
from unlabeled.engine import background_writer, checkpoint
from unlabeled.engine.background_writer import BackgroundWriter
from unlabeled.engine.trainer import Trainer
from unlabeled.errors import DivergenceError, EnvironmentProblem
from unlabeled.hooks.base import Hook

FAST = ("hooks.knn_probe=null", "max_steps=2")


@contextmanager
def no_room(limit: int) -> Iterator[None]:
    """No file of more than `limit` bytes can be written, as on a disk that is full."""
    no_limit = resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, no_limit))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (no_limit, no_limit))


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return tiny_trainer(tmp_path / "run", *FAST)


@pytest.fixture
def writer(trainer: Trainer) -> Iterator[BackgroundWriter]:
    writer = writer_of(trainer)
    yield writer
    writer.close()


@pytest.mark.slow
def test_an_error_of_the_run_does_not_cost_the_checkpoint_in_flight(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, *LARGE, "checkpoint.every_steps=1")

    class Fails(Hook):
        def step_done(self, trainer: Trainer) -> None:
            raise DivergenceError("the loss became nan")

    trainer.hooks.append(Fails(None))  # behind the writer, which has just begun
    with pytest.raises(DivergenceError):
        trainer.fit()
    assert names(trainer.run.checkpoints) == ["00000001", "last"]


@pytest.mark.slow
def test_a_disk_that_fills_up_behind_the_run_is_told_at_the_next_checkpoint(
    trainer: Trainer, writer: BackgroundWriter
) -> None:
    folder = trainer.run.checkpoints
    good = writer.save(1, contents_of(trainer, 1))
    writer.wait()
    with no_room(beyond := 50_000):
        assert (good / "shared.pt").stat().st_size > beyond
        writer.save(2, contents_of(trainer, 2))
        with pytest.raises(EnvironmentProblem, match=r"step 2 .*shared\.pt: File too large"):
            writer.save(3, contents_of(trainer, 3))
    assert names(folder) == [good.name, "last"]
    checkpoint.load(good)


@pytest.mark.slow
@pytest.mark.parametrize("background", ["true", "false"])
def test_a_last_checkpoint_without_room_is_an_error_of_the_run(
    tmp_path: Path, background: str
) -> None:
    choices = (*FAST, "hooks.export=null", f"checkpoint.background={background}")
    trainer = tiny_trainer(tmp_path, *choices)
    with no_room(100_000), pytest.raises(EnvironmentProblem, match="step 2 was not written"):
        trainer.fit()
    assert names(trainer.run.checkpoints) == []


def test_a_folder_that_is_gone_is_told_in_words(trainer: Trainer, writer: BackgroundWriter) -> None:
    """Whatever the file system does, the thread's trouble becomes an error for people."""
    trainer.run.checkpoints.rmdir()
    trainer.run.checkpoints.write_text("a file in the way")
    writer.save(1, contents_of(trainer, 1))
    with pytest.raises(EnvironmentProblem, match=r"Not a directory|File exists"):
        writer.wait()


def _rank_1_cannot_write(folder: str) -> tuple[str, str, list[str]]:
    """What each rank is told at the next checkpoint, and at the end of a run."""
    said = []
    trainer = tiny_trainer(Path(folder), *FAST, "launch.processes=2")
    for ends in ("save", "wait"):
        writer = writer_of(trainer)
        writer.save(1, contents_of(trainer, 1))
        writer.wait()
        with no_room(1000 if comm.rank() == 1 else resource.RLIM_INFINITY):
            try:
                writer.save(2, contents_of(trainer, 2))
                if ends == "save":
                    writer.save(3, contents_of(trainer, 3))
                writer.wait()
            except EnvironmentProblem as error:
                said.append(str(error))
        writer.close()
        comm.barrier()
    return said[0], said[1], names(trainer.run.checkpoints)


@pytest.mark.slow
def test_one_rank_of_two_that_fails_is_told_on_both_and_publishes_nothing(tmp_path: Path) -> None:
    first, second = run_ranks(_rank_1_cannot_write, 2, str(tmp_path))
    assert first == second
    assert "step 2 was not written (rank0001.pt: File too large)" in first[0]
    assert first[0] == first[1]
    assert first[2] == ["00000001", "last"]


def _rank_1_is_slow_and_both_leave(folder: str) -> bool:
    """No collective after `save`, as when an error leaves `fit`; whether it is there on leaving."""
    choices = LARGE if comm.rank() == 1 else (*LARGE[:1], "method.queue_samples=24", LARGE[2])
    trainer = tiny_trainer(Path(folder), *choices, "launch.processes=2")
    writer = writer_of(trainer)
    path = writer.save(1, contents_of(trainer, 1))
    writer.close()
    return (path / "rank0001.pt").is_file()


def _rank_1_never_writes(folder: str) -> tuple[float, list[str]]:
    """Rank 1 is gone: rank 0 gives up in time and publishes nothing."""
    trainer = tiny_trainer(Path(folder), *FAST, "launch.processes=2")
    writer = writer_of(trainer)
    started = time.monotonic()
    if comm.rank() == 0:
        background_writer.CLOSING_SECONDS = 1.0
        writer.save(1, contents_of(trainer, 1))
        writer.close()
    seconds = time.monotonic() - started
    comm.barrier()
    left = names(trainer.run.checkpoints)
    comm.barrier()
    writer_of(trainer).close()  # the next start
    return seconds, [*left, *names(trainer.run.checkpoints)]


@pytest.mark.slow
def test_ranks_that_leave_early_wait_for_each_other_but_not_for_ever(tmp_path: Path) -> None:
    there = run_ranks(_rank_1_is_slow_and_both_leave, 2, str(tmp_path / "slow"))
    assert there == [True, True]
    (seconds, left), _ = run_ranks(_rank_1_never_writes, 2, str(tmp_path / "dead"))
    assert 1.0 <= seconds < 20.0
    assert left == [".00000001.incomplete"]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_while_it_writes_the_last_good_one_continues_it(
    tmp_path: Path, processes: int
) -> None:
    command = [
        "pretrain", *TINY, *LARGE, "checkpoint.every_steps=1", "max_steps=4",
        f"launch.processes={processes}",
    ]  # fmt: skip
    alone = unlabeled(*command, f"run.dir={tmp_path / 'alone'}", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    folder = tmp_path / "killed" / "checkpoints"
    torn = folder / ".00000003.incomplete"
    with started(*command, f"run.dir={tmp_path / 'killed'}", cwd=tmp_path) as process:
        while not any(torn.glob("*.part")):
            assert process.poll() is None
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=60)
    # Almost always 2: the kill may come a moment late, when 3 is in its place.
    assert checkpoint.newest(folder) in (folder / "00000002", folder / "00000003")
    finished = unlabeled(*command, f"run.dir={tmp_path / 'killed'}", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "continuing from step" in finished.stdout
    assert names(folder) == ["00000003", "00000004", "last"]
    ours, theirs = (
        # Python's own generator is used nowhere, and every process starts it elsewhere.
        {k: t for k, t in written(each / "00000004").items() if "/random/python" not in k}
        for each in (folder, tmp_path / "alone" / "checkpoints")
    )
    assert not different(ours, theirs)
