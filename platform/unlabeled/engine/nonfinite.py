"""A loss that is NaN or infinite stops the run at once, on all ranks together."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import torch

from unlabeled.data.types import Batch
from unlabeled.distributed import comm
from unlabeled.engine.run_directory import RunDirectory, write_atomically
from unlabeled.errors import DivergenceError
from unlabeled.methods.base import MethodOutput

NAME = "nonfinite.json"


def check_finite(
    outputs: Sequence[MethodOutput], batches: Sequence[Batch], run: RunDirectory, step: int
) -> float:
    """The mean loss over micro-batches and ranks; DivergenceError on all where it is not finite.

    Called before the optimizer step, so the weights and the last checkpoint stay good. The sample
    numbers of the offending batches go to <run>/nonfinite.json.
    """
    local = torch.stack([output.loss.detach().float() for output in outputs]).mean()
    mean = float(comm.all_reduce_sum(local.clone()) / comm.world_size())
    if math.isfinite(mean):
        return mean
    mine = [] if math.isfinite(float(local)) else [i for b in batches for i in b.indices.tolist()]
    by_rank = comm.all_gather_objects(mine)
    if comm.rank() == 0:
        found = {str(rank): ids for rank, ids in enumerate(by_rank) if ids}
        write_atomically(run.path / NAME, json.dumps({"step": step, "samples_by_rank": found}))
    raise DivergenceError(
        f"the loss became {mean} at step {step}; the sample numbers of its batch are in "
        f"{run.path / NAME} and the last good checkpoint is kept. A lower learning rate, "
        "precision=fp32 or clip_grad_norm=1 are the usual remedies"
    )
