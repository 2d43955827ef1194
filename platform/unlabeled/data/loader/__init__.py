"""Batches of views, each a pure function of the step: no hidden state, however they are loaded.

Which images a batch holds, what is drawn for them and what replaces a broken one depend only on
(seed, step, micro step, rank, world size), so a run that was killed goes on with the same batches,
and threads, worker processes, prefetching and pinning change nothing but speed.

`step_batches` and `in_order` say what a batch holds; `slots` is the memory it is written to;
`crew`, `threads` and `processes` (with `worker`) fill that memory row by row; `stream` hands the
batches out.
"""

from unlabeled.data.loader.step_batches import StepBatches
from unlabeled.data.loader.stream import batches, eval_batches, range_batches

__all__ = ["StepBatches", "batches", "eval_batches", "range_batches"]
