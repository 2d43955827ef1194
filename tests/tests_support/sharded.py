"""Small runs whose parameters the ranks divide among them, and whole tensors of what is divided."""

from __future__ import annotations

from torch import Tensor

from unlabeled.distributed.shards import whole as all_rows
from unlabeled.engine.trainer import Trainer

FSDP = "sharding=fsdp"
LARC = ("optimizer=larc", "scheduler.lr=0.1")
SHORT = ("backbone.stages=1", "dataset.num_samples=24")
"""An epoch has two steps."""
ALONE = "sync_batch_norm.enabled=false"
"""A synchronised layer waits for the other rank twice a pass; the shorter tests have them."""


def whole(trainer: Trainer) -> dict[str, Tensor]:
    """A copy of the method's state; all ranks must call this together."""
    state = trainer.method.state_dict()
    return {n: all_rows(t).detach().clone() for n, t in state.items()}
