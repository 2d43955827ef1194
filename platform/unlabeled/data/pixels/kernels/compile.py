"""Compile the kernels once per machine, and load them from the cache on disk after that."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import platform
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import llvmlite.binding
import numba
import numpy as np
from numba import config, njit
from numba.core.errors import NumbaError

from unlabeled.data import randomness
from unlabeled.data.pixels import geometry, table
from unlabeled.data.pixels.kernels.kernel import OPTIONS
from unlabeled.data.pixels.kernels.pass_order import rule_of_pil
from unlabeled.data.pixels.kernels.plan import plan
from unlabeled.data.pixels.kernels.render import render
from unlabeled.data.pixels.kernels.scratch import Scratch, scratch_for
from unlabeled.errors import EnvironmentProblem

log = logging.getLogger(__name__)

SECONDS = 10  # on one core of a server CPU of 2022

_one_at_a_time = threading.Lock()


class Kernels(NamedTuple):
    """Compiled functions, and what `render.render` needs to be called."""

    plan: Callable[..., None]
    render: Callable[..., None]
    pass_order: int
    scratch_for: Callable[[int, int, int], Scratch]


def kernels() -> Kernels:
    """Compiled or loaded by the first call in a process.

    EnvironmentProblem if numba cannot compile them.
    """
    with _one_at_a_time:
        return _kernels()


@cache
def _kernels() -> Kernels:
    folder = cache_folder()
    if folder is None:
        log.warning(
            "compiling the image kernels in every process, about %d s: no folder can be written to "
            "keep them; set NUMBA_CACHE_DIR to one",
            SECONDS,
        )
    with _caching_in(folder):
        plan_function, render_function = (
            _compiled(function, folder) for function in (plan, render)
        )
    try:
        with _alone_if_compiling(folder):
            _plan_nothing(plan_function)
            _render_nothing(render_function)
    except NumbaError as error:
        raise EnvironmentProblem(
            f"numba {numba.__version__} cannot compile the image kernels; take another release of "
            f"numba, or backend=portable: {str(error).splitlines()[0]}"
        ) from error
    return Kernels(plan_function, render_function, rule_of_pil(), scratch_for)


def _compiled(function: Callable[..., None], folder: Path | None) -> Any:
    if folder is None:
        return njit(**OPTIONS)(function)
    return njit(cache=True, **OPTIONS)(_kept_in(folder, function))


def _kept_in(folder: Path, function: Callable[..., None]) -> FunctionType:
    """The function, said to come from a copy of its source that lies in `folder`.

    numba finds what it compiled by the path and the time of the source, so every copy of the
    package, such as the one that a job of a cluster runs, would be compiled anew.
    """
    assert isinstance(function, FunctionType)
    source = Path(function.__code__.co_filename)
    copy = folder / source.name
    if not copy.exists():
        new = folder / f"{source.name}.{os.getpid()}"
        new.write_bytes(source.read_bytes())
        os.utime(new, (0, 0))  # whoever writes it, and however often
        new.replace(copy)
    code = function.__code__.replace(co_filename=str(copy))
    moved = FunctionType(code, function.__globals__, function.__name__, function.__defaults__)
    moved.__module__, moved.__qualname__ = function.__module__, function.__qualname__
    return moved


def _plan_nothing(function: Any) -> None:
    recipe = np.empty((0, 10)), np.empty((0, 4)), np.empty((0, 6))
    table, codes, numbers = np.empty((0, 9), np.int64), np.empty(0, np.int64), np.empty(0)
    function(0, 1, 1, *recipe, 0, table, codes, numbers, np.empty((0, 0, 2)))


def _render_nothing(function: Any) -> None:
    """Call it with no views: numba compiles, or loads, for the types of the first call."""
    views, codes, numbers = np.empty((0, 9), np.int64), np.empty(0, np.int64), np.empty(0)
    function(0, 1, 1, 0, views, codes, numbers, scratch_for(1, 1, 1))


@contextmanager
def _alone_if_compiling(folder: Path | None) -> Iterator[None]:
    """Let one process of this machine compile, and those that wait for it load what it made."""
    if folder is None or _is_filled(folder):
        yield
        return
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: they all compile the same
            log.debug("no locks in %s", folder)
        if not _is_filled(folder):
            log.info("compiling the image kernels, once for this machine: about %d s", SECONDS)
        yield


def _is_filled(folder: Path) -> bool:
    return len(list(folder.rglob("*.nbi"))) == len((plan, render))


def cache_folder() -> Path | None:
    """Where compiled kernels of exactly these sources, this numba and this CPU are kept.

    In $NUMBA_CACHE_DIR, or the user's cache folder; never beside the sources, which may be
    read-only or shared by machines. None if nothing can be written there.
    """
    try:
        user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(config.CACHE_DIR or user) / "unlabeled" / f"kernels-{fingerprint()}"
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError):  # no right to write, or no home
        return None
    return folder


def fingerprint() -> str:
    """Changes with anything that could change the compiled code.

    numba itself looks at the file of the function that is cached, but not at what that one calls.
    """
    digest = hashlib.sha256()
    for path in [
        *sorted(Path(__file__).parent.glob("*.py")),
        *(Path(str(module.__file__)) for module in (geometry, randomness, table)),
    ]:
        digest.update(path.read_bytes())
    surroundings = (
        table.CODES,
        numba.__version__,
        np.__version__,
        sys.version,
        platform.machine(),
        llvmlite.binding.get_host_cpu_name(),
        llvmlite.binding.get_host_cpu_features().flatten(),
        sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_")),
    )
    digest.update(repr(surroundings).encode())
    return digest.hexdigest()[:16]


@contextmanager
def _caching_in(folder: Path | None) -> Iterator[None]:
    """Let numba cache what is decorated within in this folder."""
    before = config.CACHE_DIR
    config.CACHE_DIR = "" if folder is None else str(folder)
    try:
        yield
    finally:
        config.CACHE_DIR = before
