"""How much a run computes, and how long that takes."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from unlabeled.data.types import ViewSpec
from unlabeled.planning.live_storages import LiveStorages
from unlabeled.planning.without_memory import empty_tensors, without_memory

SECONDS_A_DAY = 86_400


def forward_multiply_adds(
    backbone: nn.Module, head: nn.Module, feature_dim: int, views: tuple[ViewSpec, ...]
) -> dict[int, int]:
    """Multiply-adds of the forward pass of one crop through backbone and head, by its size.

    Those of convolutions and matrix products, as fvcore counts them, which cannot itself: it
    traces, and tracing needs weights. Both modules are on the meta device before, and of no use
    afterwards.
    """
    with without_memory(), torch.no_grad():
        empty_tensors(backbone)
        empty_tensors(head)
        of_head = multiply_adds(head, torch.empty(1, feature_dim))
        sizes = {view.size for view in views}
        return {s: multiply_adds(backbone, torch.empty(1, 3, s, s)) + of_head for s in sizes}


def multiply_adds(module: nn.Module, inputs: Tensor) -> int:
    """Of one forward pass in evaluation mode, in which the module is left."""
    with LiveStorages() as counted:
        module.eval()(inputs)
    return int(counted.flops) // 2


def over_views(by_size: dict[int, int], views: tuple[ViewSpec, ...]) -> int:
    """Multiply-adds of an image over all of its crops."""
    return sum(by_size[size] * count for size, count in Counter(v.size for v in views).items())


def step_seconds(flops: float, tflops: float, efficiency: float) -> float:
    """How long a rank takes for `flops` operations at a share of its peak of 10^12 `tflops`."""
    return flops / (tflops * 1e12 * efficiency)


def days(steps: int, seconds_a_step: float) -> float:
    """How long a run takes without interruptions."""
    return steps * seconds_a_step / SECONDS_A_DAY
