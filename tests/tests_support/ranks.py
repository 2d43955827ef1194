"""Runs a test function in several processes that form a real gloo group.

The processes are started once and serve every later call of the test session; each call gets a
process group of its own. They are forks of the session itself, which has imported everything, made
while that is still possible. A call that fails or hangs costs its processes, so that nothing of it
reaches the next one. A process has one rank for life, as in any real run: DTensor keeps device
meshes between calls, and with them the place of the process in them.
"""

from __future__ import annotations

import atexit
import faulthandler
import importlib.util
import inspect
import multiprocessing
import os
import pickle
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist

DONE, FAILED, RELEASE = b"d", b"f", b"r"
FORKED_EARLY = 32
"""Four ranks, and those that take the places of the ones that tests cost."""
_spare: list[_Worker] = []
"""Processes that have no rank yet."""
_pool: dict[int, _Worker] = {}
"""By rank."""
_modules: dict[str, ModuleType] = {}
"""Of the tests that a rank has run."""
LATER = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class _Worker:
    process: BaseProcess
    pipe: Connection


@dataclass(frozen=True)
class _Job:
    """What a rank has to run; `payload` is pickled on its own, to be read after its module."""

    module: str
    path: str
    function: str
    payload: bytes
    rank: int
    world_size: int
    folder: str
    stack_at: float
    environ: dict[str, str]
    cwd: str


def run_ranks(
    function: Callable[..., Any], world_size: int, *args: Any, timeout: float = 120.0
) -> list[Any]:
    """The results of `function(*args)` on every rank of a gloo group of `world_size`, by rank.

    `function` is defined at the top of its module; arguments and results can be pickled. Every rank
    computes with one thread and starts from torch seed 0, with this process's environment variables
    and working directory. Raises RuntimeError with the rank's traceback when a rank fails or dies,
    and with the stacks of the waiting ranks after `timeout` seconds. A call costs a few hundredths
    of a second once the processes run; several cases in one call save even that.
    """
    workers = _workers(world_size)
    with tempfile.TemporaryDirectory() as folder:
        finished = False
        try:
            for rank, worker in enumerate(workers):
                job = _job(function, args, rank, world_size, folder, timeout)
                worker.pipe.send_bytes(pickle.dumps(job))
            results = _collect(workers, folder, timeout)
            for worker in workers:
                worker.pipe.send_bytes(RELEASE)
            # The folder of the group's store goes next, and a store that writes down that it leaves
            # waits half an hour for a file whose folder is gone.
            _collect(workers, folder, timeout)
            finished = True
        finally:
            if not finished:
                _discard(range(world_size))
    return results


def _job(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    rank: int,
    world_size: int,
    folder: str,
    timeout: float,
) -> _Job:
    path = inspect.getsourcefile(function)
    assert path is not None, f"{function} has no source file"
    assert function.__qualname__.isidentifier(), f"{function} is not at the top of its module"
    return _Job(
        module=function.__module__,
        path=str(Path(path).resolve()),
        function=function.__qualname__,
        payload=pickle.dumps(args),
        rank=rank,
        world_size=world_size,
        folder=folder,
        stack_at=time.time() + 0.9 * timeout,
        environ=dict(os.environ),
        cwd=os.getcwd(),
    )


def _workers(count: int) -> list[_Worker]:
    """The processes of ranks 0 to `count` - 1, started where they are missing."""
    _discard([rank for rank, worker in _pool.items() if not worker.process.is_alive()])
    for rank in range(count):
        if rank not in _pool:
            _pool[rank] = _spare.pop(0) if _spare else _start(LATER, [])
    return [_pool[rank] for rank in range(count)]


def fork_early() -> None:
    """Start processes for ranks as forks of this one, which takes no time.

    To be called before its first backward pass: autograd does not work in forks of one that had it.
    """
    for _ in range(FORKED_EARLY):
        others = [worker.pipe for worker in _spare]
        _spare.append(_start(multiprocessing.get_context("fork"), others))


def _start(how: ForkContext | SpawnContext, inherited: list[Connection]) -> _Worker:
    """A process that waits for jobs; a fork holds the ends of pipes that only this process may."""
    pipe, theirs = how.Pipe()
    unwanted = [*inherited, pipe] if isinstance(how, ForkContext) else []
    process = how.Process(target=_serve, args=(theirs, unwanted))
    process.start()
    theirs.close()  # so that a dead worker reads as end of file here
    return _Worker(process, pipe)


def _discard(ranks: Iterable[int]) -> None:
    _end([_pool.pop(rank) for rank in ranks])


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.join()
        worker.pipe.close()


@atexit.register
def _close_pool() -> None:
    _end([*_pool.values(), *_spare])


def _collect(workers: list[_Worker], folder: str, timeout: float) -> list[Any]:
    results: dict[int, Any] = {}
    deadline = time.monotonic() + timeout
    while len(results) < len(workers):
        waiting = {w.pipe: rank for rank, w in enumerate(workers) if rank not in results}
        ready = wait(list(waiting), timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            stacks = "\n".join(_stack(folder, rank) for rank in waiting.values())
            raise RuntimeError(f"no result after {timeout} s:\n{stacks}")
        for pipe in ready:
            assert isinstance(pipe, Connection)
            results[waiting[pipe]] = _receive(workers, waiting[pipe])
    return [results[rank] for rank in range(len(workers))]


def _receive(workers: list[_Worker], rank: int) -> Any:
    where = f"rank {rank} of {len(workers)}"
    try:
        message = workers[rank].pipe.recv_bytes()
    except EOFError:
        workers[rank].process.join()
        status = workers[rank].process.exitcode
        raise RuntimeError(f"{where} died with exit status {status}") from None
    if message[:1] == FAILED:
        raise RuntimeError(f"{where} failed:\n{message[1:].decode()}")
    return pickle.loads(message[1:])


def _stack(folder: str, rank: int) -> str:
    file = Path(folder, f"stack{rank}")
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return f"rank {rank} was at:\n{text or 'an unknown place outside of the function'}"


def _serve(pipe: Connection, unwanted: list[Connection]) -> None:
    """A worker's life: jobs until the parent closes the pipe, of which nobody else has its end."""
    for each in unwanted:
        each.close()
    warnings.resetwarnings()  # to those who train a warning is none of pytest's errors
    torch.set_num_threads(1)
    while True:
        try:
            job = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        try:
            answer = DONE + pickle.dumps(_run(job))
        except BaseException:  # noqa: BLE001 - reported; a failed pytest.raises is no Exception
            answer = FAILED + traceback.format_exc().encode()
        pipe.send_bytes(answer)
        try:
            # Leaving the group earlier would break collectives that slower ranks still finish.
            pipe.recv_bytes()
        except EOFError:
            return
        if dist.is_initialized():
            dist.destroy_process_group()
        pipe.send_bytes(DONE + pickle.dumps(None))


def _run(job: _Job) -> Any:
    os.environ.clear()
    os.environ.update(job.environ)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # no look-up of the machine's own name
    os.chdir(job.cwd)
    torch.manual_seed(0)
    with Path(job.folder, f"stack{job.rank}").open("w", encoding="utf-8") as stack:
        faulthandler.dump_traceback_later(max(0.1, job.stack_at - time.time()), file=stack)
        try:
            dist.init_process_group(
                "gloo",
                init_method=Path(job.folder, "store").as_uri(),
                rank=job.rank,
                world_size=job.world_size,
            )
            function = getattr(_module(job), job.function)
            return function(*pickle.loads(job.payload))
        finally:
            faulthandler.cancel_dump_traceback_later()


def _module(job: _Job) -> Any:
    """The function's module, under the name that it has in the parent.

    Test files are no packages: pytest loads them by path under names that nothing can import. A
    fork has them already, with files in them that are open at a place which all forks share.
    """
    if job.module not in _modules:
        spec = importlib.util.spec_from_file_location(job.module, job.path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[job.module] = _modules[job.module] = module
        spec.loader.exec_module(module)
    return _modules[job.module]
