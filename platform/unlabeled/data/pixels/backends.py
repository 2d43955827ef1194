"""Which backend makes the pixels of a pipeline."""

from __future__ import annotations

import logging
from typing import Literal

from unlabeled.data.pixels import compiled
from unlabeled.data.pixels.compiled import Compiled
from unlabeled.data.pixels.portable import Portable
from unlabeled.data.pixels.reference import Reference
from unlabeled.data.pixels.renderer import Renderer
from unlabeled.errors import EnvironmentProblem

log = logging.getLogger(__name__)

Backend = Literal["auto", "compiled", "portable", "reference", "device"]
"""auto: the fastest that can do the operations. compiled: numba kernels. portable: torch's resize
and numpy. reference: PIL. device: crops on the host, the rest in batches on the accelerator."""


def renderer(backend: Backend, *, in_python: bool) -> Renderer:
    """The backend of this name; `in_python`: some operation works on PIL images.

    `device` gives the host's half. EnvironmentProblem where what was asked for is not installed.
    """
    if backend == "reference" or in_python:
        return Reference()
    if backend == "portable":
        return Portable()
    if compiled.available():
        return Compiled()
    if backend == "compiled":
        raise EnvironmentProblem(
            "transform.backend: 'compiled' needs numba, which cannot be imported here; "
            "pip install numba, or take backend=auto"
        )
    log.warning("numba is not installed: views take about three times as long to make")
    return Portable()
