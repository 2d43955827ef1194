"""Stages whose activations are computed again in backward instead of being kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from unlabeled.methods.running_statistics import unchanged_running_statistics


def checkpoint_activations(stages: Iterable[nn.Module]) -> None:
    """Keep of every stage its input alone, and run its forward pass once more in backward.

    Loss, gradients and buffers are those of the stage as it was: random numbers are drawn again
    from the same state, and running statistics count every image once.
    DDP: collectives inside a stage (synchronised batch normalisation) happen twice, on all ranks.
    """
    for stage in stages:
        _checkpoint(stage)


def _checkpoint(stage: nn.Module) -> None:
    computed = stage.forward

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), _counted_once(stage)

    def forward(*inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return computed(*inputs)
        return checkpoint(computed, *inputs, use_reentrant=False, context_fn=contexts)

    # On the instance, inside of the module's hooks: parameters keep their names, and FSDP gathers
    # a stage once for the pass that computes it again.
    stage.forward = forward


@contextmanager
def _counted_once(module: nn.Module) -> Iterator[None]:
    """Leave running statistics, and how many batches they are of, as they are."""
    # Not by turning them off: a layer without them keeps other tensors for backward.
    counts = [
        (layer.num_batches_tracked, layer.num_batches_tracked.clone())
        for layer in module.modules()
        if isinstance(layer, _BatchNorm) and layer.num_batches_tracked is not None
    ]
    try:
        with unchanged_running_statistics(module):
            yield
    finally:
        for count, before in counts:
            count.copy_(before)
