"""faiss, where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Literal

import torch
from torch import Tensor

from unlabeled.errors import EnvironmentProblem

Backend = Literal["auto", "torch", "faiss"]
"""Who computes; auto: faiss where it is installed and the features are on the CPU, else torch."""


def import_faiss(key: str) -> Any:
    """The module, with as many threads as torch; EnvironmentProblem, naming `key`, without it."""
    try:
        faiss = importlib.import_module("faiss")
    except ImportError as error:
        raise EnvironmentProblem(
            f"{key}=faiss needs faiss, which cannot be imported ({error}); pip install faiss-cpu, "
            f"or give {key}=torch"
        ) from error
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss


def uses_faiss(backend: Backend, features: Tensor) -> bool:
    """Whether faiss computes on these features."""
    if backend == "auto":
        return features.device.type == "cpu" and importlib.util.find_spec("faiss") is not None
    return backend == "faiss"
