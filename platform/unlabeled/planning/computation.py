"""How much a run computes, and how long that takes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from unlabeled.data.types import ViewSpec
from unlabeled.engine.precision import TYPES
from unlabeled.planning.gpus import GPU
from unlabeled.planning.operations import Operation, Operations
from unlabeled.planning.without_memory import empty_tensors, without_memory

SECONDS_A_DAY = 86_400


def multiply_adds_by_size(backbone: nn.Module, views: tuple[ViewSpec, ...]) -> dict[int, int]:
    """Multiply-adds of a backbone's forward pass of one crop, by its size.

    Those of convolutions and matrix products, as fvcore counts them, which cannot itself: it
    traces, and tracing needs weights. The backbone is on the meta device before, and of no use
    afterwards.
    """
    with without_memory(), torch.no_grad():
        empty_tensors(backbone)
        sizes = {view.size for view in views}
        return {s: multiply_adds(backbone, torch.empty(1, 3, s, s)) for s in sizes}


def multiply_adds(module: nn.Module, inputs: Tensor) -> int:
    """Of one forward pass in evaluation mode, in which the module is left."""
    with Operations() as counted:
        module.eval()(inputs)
    return int(counted.flops) // 2


def shortest_seconds(operations: Iterable[Operation], gpu: GPU) -> float:
    """How long a GPU takes at least: the roofline of Williams, Waterman and Patterson (2009).

    t = sum over operations of max(flops / peak of their type, bytes / bandwidth of the memory).
    """
    peaks = {TYPES[precision]: tflops * 1e12 for precision, tflops in gpu.tflops.items()}
    slowest = peaks[torch.float32]
    bandwidth = gpu.gb_per_second * 1e9
    return sum(max(o.flops / peaks.get(o.dtype, slowest), o.bytes / bandwidth) for o in operations)


def days(steps: int, seconds_a_step: float) -> float:
    """How long a run takes without interruptions."""
    return steps * seconds_a_step / SECONDS_A_DAY
