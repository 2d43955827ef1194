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
) -> dict[str, float]:
    """Means over micro-batches and ranks of `loss` and of the method's scalars.

    They travel together, in one all-reduce. DivergenceError on all ranks if the loss is not finite.
    Called before the optimizer step, so the weights and the last checkpoint stay good. The sample
    numbers of the offending batches go to <run>/nonfinite.json.
    """
    numbers = [{"loss": output.loss, **output.scalars} for output in outputs]
    local = torch.stack(
        [torch.stack([n[name].detach().float() for n in numbers]).mean() for name in numbers[0]]
    )
    reduced = (comm.all_reduce_sum(local.clone()) / comm.world_size()).tolist()
    means = dict(zip(numbers[0], reduced, strict=True))
    if math.isfinite(means["loss"]):
        return means
    mine = (
        [] if math.isfinite(float(local[0])) else [i for b in batches for i in b.indices.tolist()]
    )
    by_rank = comm.all_gather_objects(mine)
    if comm.rank() == 0:
        found = {str(rank): ids for rank, ids in enumerate(by_rank) if ids}
        write_atomically(run.path / NAME, json.dumps({"step": step, "samples_by_rank": found}))
    raise DivergenceError(
        f"the loss became {means['loss']} at step {step}; the sample numbers of its batch are in "
        f"{run.path / NAME} and the last good checkpoint is kept. A lower learning rate, "
        "precision=fp32 or clip_grad_norm=1 are the usual remedies"
    )
