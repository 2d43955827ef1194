"""A real SLURM, and a run on it that nothing disturbs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests_support.slurm import TWO, configuration, start, submit


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """The cluster of dev/slurm_cluster.sh; tests/conftest.py stops it if this started it."""
    problem = start()
    if problem is not None:
        pytest.skip(f"no SLURM can be started here: {problem}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", configuration())
        yield


@pytest.fixture(scope="module")
def alone(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two nodes, never disturbed."""
    job = submit(tmp_path_factory.mktemp("alone") / "run", *TWO)
    assert job.wait() == "COMPLETED", job.output()
    assert job.restarts() == []
    return job.run
