"""A real SLURM, and the run that its jobs have to equal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests_support.command import unlabeled
from tests_support.slurm import SMALL, STEPS, configuration, start


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
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes of this machine, without SLURM, that nothing disturbs."""
    run = tmp_path_factory.mktemp("alone") / "run"
    small = [choice for choice in SMALL if not choice.startswith("launch.")]
    two = ["launch.processes=2", f"max_steps={STEPS}", f"run.dir={run}"]
    done = unlabeled("pretrain", *small, *two, cwd=run.parent)
    assert done.returncode == 0, done.stderr
    return run
