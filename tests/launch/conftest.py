"""A real SLURM, and the run that its jobs have to equal."""

from __future__ import annotations

import fcntl
import os
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


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes of this machine, without SLURM, that nothing disturbs.

    Made once, by whichever process of the session of tests asks first.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    run = folder / "alone" / "run"
    with (folder / "alone.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not run.exists():
            run.parent.mkdir()
            small = [choice for choice in SMALL if not choice.startswith("launch.")]
            two = ["launch.processes=2", f"max_steps={STEPS}", f"run.dir={run}"]
            two.append("transform.backend=auto")
            done = unlabeled("pretrain", *small, *two, cwd=run.parent)
            assert done.returncode == 0, done.stderr
    return run
