"""Runs the real command in a (warm) process of its own, on a run small enough for tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests_support import warm

ROOT = Path(__file__).parents[2]
PYTHON_PATH = os.pathsep.join([str(ROOT / "platform"), str(ROOT / "tests")])
TINY = [
    "dataset=synthetic",
    "scale=small",
    "dataset.num_samples=48",
    "dataset.num_classes=4",
    "dataset.image_size=16",
    "dataset.num_test_samples=16",
    "transform.crops=[{count: 2, size: 16, scale: [0.3, 1.0], role: global, operations: null}, "
    "{count: 1, size: 8, scale: [0.1, 0.3], role: local, operations: null}]",
    "eval_transform.size=16",
    "scale.image_size=16",
    "backbone.width=0.125",
    "backbone.stages=2",
    "scale.num_prototypes=6",
    "scale.hidden_dim=16",
    "scale.projection_dim=8",
    "batch_size=12",
    "epochs=3",
    "loader.workers=0",
    "threads=1",
    "device=cpu",
    "hooks.knn_probe.k=3",
    "hooks.comparison_table=null",
]


def unlabeled(
    *arguments: str, cwd: Path, timeout: float = 240.0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`python -m unlabeled ARGUMENTS` at its end, with its output."""
    variables = {**os.environ, "PYTHONPATH": PYTHON_PATH, **environment}
    return warm.run("unlabeled", *arguments, cwd=cwd, environment=variables, timeout=timeout)


def script(path: str, *arguments: str, timeout: float = 240.0) -> subprocess.CompletedProcess[str]:
    """`python PATH ARGUMENTS`, in the root of the checkout, at its end, with its output."""
    place = str(ROOT / path)
    return warm.run(place, *arguments, cwd=ROOT, environment=dict(os.environ), timeout=timeout)


@contextmanager
def started(
    *arguments: str, cwd: Path, module: str = "unlabeled", output: IO[str] | None = None
) -> Iterator[warm.Warm]:
    """`python -m MODULE ARGUMENTS`, running, its output in a file; killed if it still runs."""
    variables = {**os.environ, "PYTHONPATH": PYTHON_PATH}
    with Path(os.devnull).open("w") as nowhere:
        file = output or nowhere
        process = warm.Warm(
            module, *arguments, cwd=cwd, environment=variables, stdout=file, stderr=file
        )
    try:
        yield process
    finally:
        process.kill()
