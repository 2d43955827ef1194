"""What every test shares: one thread and a fixed seed, so that no test depends on another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests_support import slurm
from unlabeled import registry as registries

# Tensors here are small and tests of several processes share the cores: one thread is fastest, and
# sums over several threads would round differently from machine to machine.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Jobs on SLURM first: they wait more than they compute; a second process fills the gaps."""
    items.sort(key=lambda item: item.get_closest_marker("slurm") is None)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The processes of one session share a SLURM; the session itself outlives them."""
    if not hasattr(session.config, "workerinput"):
        slurm.stop()


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Random draws of a test are the same alone, in the whole suite and in any order."""
    torch.manual_seed(0)


@pytest.fixture
def forget_registrations() -> Iterator[None]:
    """What the test registers from outside the package is unknown again after it."""
    yield
    for registry in registries._REGISTRIES.values():
        for name, cls in list(registry):
            if not cls.__module__.startswith("unlabeled."):
                del registry._obj_map[name]
