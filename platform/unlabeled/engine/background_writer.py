"""Checkpoints are written by a thread, from a copy, while the training goes on.

Every rank writes its files into a hidden folder, and the thread of rank 0 renames that folder when
the files of all ranks are in it, so the last good checkpoint survives whatever happens meanwhile.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO, cast

import torch

from unlabeled.distributed import comm
from unlabeled.engine.checkpoint import complete
from unlabeled.engine.checkpoint_files import rank_file, shard_file
from unlabeled.engine.checkpoint_shards import write_content
from unlabeled.engine.run_directory import write_atomically
from unlabeled.engine.snapshot import Place, Snapshot
from unlabeled.errors import EnvironmentProblem

CLOSING_SECONDS = 60.0
"""A run that failed gives a write in flight this long: its other ranks may be dead."""
POLLING_SECONDS = 0.02
INCOMPLETE = ".{}.incomplete"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Write:
    """A checkpoint in flight; the last two futures hold what went wrong, or None."""

    step: int
    beside: Path
    copied: Future[None]
    """`optimizer.step` may go on."""
    own: Future[str | None]
    """This rank's files are in `beside`."""
    published: Future[str | None]
    """`beside` has got its name; rank 0 only, elsewhere this is `own`."""


class BackgroundWriter:
    """Writes the checkpoints of a run into `folder`, one at a time, and keeps the newest `keep`.

    All ranks build it, save and wait together. Building it removes what a killed run left half
    written. Threads call no collective: that a rank's file is whole is seen by its name in the
    folder, which all ranks share.

    What `later` names (see checkpoint.changed_by_step) is copied by the thread, too, during the
    forward and backward pass that follow: `optimizer.step`, which changes it, waits for that.
    """

    def __init__(
        self,
        folder: Path,
        optimizer: torch.optim.Optimizer,
        *,
        later: Collection[Place],
        keep: int,
    ) -> None:
        self.folder, self.keep = folder, keep
        self._snapshot = Snapshot(later)
        self._before_step = optimizer.register_step_pre_hook(lambda *_: self.wait_copied())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._stop = Event()
        self._write: _Write | None = None
        self._awaited: set[str] = set()
        if comm.rank() == 0:
            for torn in folder.glob(INCOMPLETE.format("*")):
                shutil.rmtree(torn, ignore_errors=True)
        comm.barrier()

    def save(self, step: int, files: Mapping[str, Mapping[str, Any]]) -> Path:
        """Copy the state and return, with the folder that will hold it; `files` by their names.

        Waits for the last checkpoint first, as `wait` does. The copy is on the CPU and belongs to
        the thread: training may go on and change every tensor of `files`.
        """
        self.wait()
        final = self.folder / f"{step:08d}"
        beside = self.folder / INCOMPLETE.format(final.name)
        every_rank = [rank_file, shard_file] if shard_file(comm.rank()) in files else [rank_file]
        ranks = range(comm.world_size())
        self._awaited = {"shared.pt", *(name(rank) for name in every_rank for rank in ranks)}
        copy = self._snapshot.take(dict(files))
        copied = self._thread.submit(self._snapshot.finish)
        own = self._thread.submit(self._put, beside, copy)
        lead = comm.rank() == 0
        published = self._thread.submit(self._publish, beside, final, own) if lead else own
        self._write = _Write(step, beside, copied, own, published)
        return final

    def wait_copied(self) -> None:
        """Return when nothing of the training state is needed any more; not collective."""
        if self._write is not None:
            self._write.copied.result()

    def wait(self) -> None:
        """Return when the last checkpoint is in its place, on all ranks together.

        EnvironmentProblem on all of them if one could not write: the last good one stays.
        """
        if self._write is not None:
            write, self._write = self._write, None
            self._agree(write, write.own.result())
            self._agree(write, write.published.result())

    def close(self) -> None:
        """Finish without collectives, however the run ended: a write in flight gets a minute."""
        write, self._write = self._write, None
        deadline = time.monotonic() + CLOSING_SECONDS
        try:
            if write is not None and not self._finished(write, deadline):
                log.warning("checkpoint of step %d was in flight and is not finished", write.step)
        finally:
            self._stop.set()
            self._before_step.remove()
            self._thread.shutdown(wait=False)

    def _finished(self, write: _Write, deadline: float) -> bool:
        """Whether the checkpoint was published in time; no rank leaves, and is missed, before."""
        wait_for([write.own, write.published], timeout=deadline - time.monotonic())
        if not write.published.done() or write.published.result() is not None:
            return False
        while write.beside.exists():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLLING_SECONDS)
        return True

    def _agree(self, write: _Write, failure: str | None) -> None:
        """Go on if all ranks did what they had to; else clean up and raise on all of them."""
        failures = [each for each in comm.all_gather_objects(failure) if each]
        if not failures:
            return
        self._stop.set()
        if comm.rank() == 0:
            write.published.result()
            shutil.rmtree(write.beside, ignore_errors=True)
        comm.barrier()
        raise EnvironmentProblem(
            f"checkpoint of step {write.step} was not written ({failures[0]}); the run keeps its "
            "last good one, free some space and start the same command again"
        )

    def _put(self, beside: Path, files: Mapping[str, Mapping[str, Any]]) -> str | None:
        """In the thread: this rank's files."""
        self._snapshot.delivered()
        try:
            beside.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            return f"{beside.name}: {error.strerror}"
        for name, content in files.items():
            if failure := write_file(beside / name, content):
                return failure
        return None

    def _publish(self, beside: Path, final: Path, own: Future[str | None]) -> str | None:
        """In the thread of rank 0: give the folder its name when all ranks' files are there."""
        if own.result() is not None:
            return own.result()
        try:
            while not self._awaited <= set(os.listdir(beside)):
                if self._stop.wait(POLLING_SECONDS):
                    return "given up"
            shutil.rmtree(final, ignore_errors=True)
            os.replace(beside, final)
            write_atomically(final.parent / "last", final.name + "\n")
            # Those of later steps are of a branch that was left by naming an older checkpoint.
            kept = [each for each in complete(final.parent) if each.name <= final.name]
            for old in kept[: -self.keep]:
                shutil.rmtree(old)
        except OSError as error:
            return f"{final.name}: {error.strerror}"
        except EnvironmentProblem as problem:
            return str(problem)
        return None


def write_file(path: Path, content: Mapping[str, Any]) -> str | None:
    """Write beside, flush to the disk and rename; what went wrong, or None.

    Shards are written as safetensors, everything else by torch.save.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            stream = _Stream(file)
            if path.suffix == ".safetensors":
                write_content(stream.write, content)
            else:
                torch.save(dict(content), cast(BinaryIO, stream))
            if stream.error is not None:
                raise stream.error
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        return f"{path.name}: {error.strerror}"
    return None


class _Stream:
    """A file for torch.save, which cannot pass an OSError on: the first one waits in `error`.

    Bytes go straight to the file: each write lets other threads run, and no second copy is made.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        """Pass on, unless an earlier write failed."""
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """The file is flushed when it is whole."""
