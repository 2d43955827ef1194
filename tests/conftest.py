"""What every test shares: one thread and a fixed seed, so that no test depends on another.

Torch is imported where tests are: the process that only hands them out starts seconds earlier.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
from collections.abc import Iterator

import pytest

from tests_support import slurm
from unlabeled import registry as registries


def pytest_collectstart() -> None:
    """Tensors here are small and tests of several processes share the cores: one thread is fastest.

    And sums over several threads would round differently from machine to machine.
    """
    gc.disable()  # until all is imported
    import torch

    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, those with jobs on SLURM before all: at the end no process idles."""
    for name in ("slow", "slurm"):
        items.sort(key=lambda item: item.get_closest_marker(name) is None)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Spare the garbage collector what was imported, a tenth of the time; then fork the ranks."""
    gc.enable()
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)
    if any(hasattr(item.module, "run_ranks") for item in session.items):  # type: ignore[attr-defined]
        from tests_support import in_process, ranks

        if "PYTEST_XDIST_WORKER" in os.environ:  # a whole tier: ranks begin with what all compose
            in_process.compose_methods()
        ranks.fork_early()


def pytest_configure() -> None:
    """Give the session a name, which the processes that it starts inherit."""
    os.environ.setdefault(slurm.SESSION, str(os.getpid()))


def pytest_sessionfinish() -> None:
    """What the processes of a session share is stopped by the one that began it."""
    if os.environ[slurm.SESSION] == str(os.getpid()):
        slurm.stop()


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Random draws of a test are the same alone, in the whole suite and in any order."""
    import torch

    torch.default_generator.manual_seed(0)
    # torch.manual_seed would note where it was called for every kind of GPU that is not in use.
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(0)


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """A run that was stopped ignores further signals, and so would every child; tests go on."""
    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in watched}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def forget_registrations() -> Iterator[None]:
    """What the test registers from outside the package is unknown again after it."""
    yield
    for registry in registries._REGISTRIES.values():
        for name, cls in list(registry):
            if not cls.__module__.startswith("unlabeled."):
                del registry._obj_map[name]
