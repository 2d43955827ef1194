"""Planned memory is what real runs are measured to hold, to a byte in float32."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from tests_support.in_process import tiny_trainer
from tests_support.planning import plan_of, tiny_plan
from tests_support.ranks import run_ranks
from unlabeled.distributed.shards import local
from unlabeled.engine.trainer import Trainer
from unlabeled.planning.memory import Memory
from unlabeled.planning.rehearsal import size

SIZE = (
    *("batch_size=8", "dataset.image_size=32", "hooks.knn_probe=null", "max_steps=2"),
    *("backbone.width=0.25", "backbone.stages=3"),
    "transform.crops=[{count: 2, size: 32, scale: [0.3, 1.0], role: global, operations: null}, "
    "{count: 2, size: 24, scale: [0.1, 0.3], role: local, operations: null}]",
)
WIDE = "backbone.width=0.5"
REGNET = (
    "backbone={name: regnet, depth: 5, w0: 32, wa: 30.0, wm: 2.0, group_width: 8, se_ratio: 0.25}"
)
CASES: list[tuple[str, ...]] = [
    ("precision=bf16",),
    ("activation_checkpointing=stage", "optimizer=adamw"),
    ("method=simclr", "precision=bf16", "accumulate_steps=2"),
    ("method=deepcluster_v2",),
]
SHARDED = ("launch.processes=2", "sharding=fsdp", "precision=bf16")


pytestmark = pytest.mark.slow


class Measured(NamedTuple):
    """Bytes that a run was seen to hold."""

    parameters: int
    buffers: int
    gradients: int
    slots: int
    images: int
    activations: int


def kept_for_backward(trainer: Trainer) -> tuple[int, int]:
    """Images of a step, and what a forward pass keeps beside them: storages, each counted once."""
    batches = trainer.data.training(0, trainer.settings.last_step)
    found = trainer.fetch(batches)
    images = [view for batch in found for view in batch.views]
    others = [*trainer.method.parameters(), *trainer.method.buffers(), *images]
    known = {tensor.untyped_storage().data_ptr() for tensor in others}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    trainer.method.train()
    with torch.no_grad(), trainer.precision.autocast():
        trainer.method.before_step(trainer.progress, found)
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with hooks, trainer.precision.autocast():
        output = trainer.parallel(found[0], 0)
    assert output.loss.requires_grad  # alive, and all that it keeps with it
    return sum(map(size, images)), sum(kept.values())


def held(trainer: Trainer) -> tuple[int, int, int]:
    """Parameters, gradients and optimizer state of this rank after two steps."""
    trainer.fit()
    parameters = list(trainer.method.parameters())
    gradients = [local(p.grad) for p in parameters if p.grad is not None]
    state = [t for slots in trainer.optimizer.state.values() for t in slots.values()]
    slots = [local(tensor) for tensor in state if isinstance(tensor, Tensor)]
    own = [local(p) for p in parameters]
    return sum(map(size, own)), sum(map(size, gradients)), sum(map(size, slots))


def measured(trainer: Trainer) -> Measured:
    parameters, gradients, slots = held(trainer)
    buffers = sum(map(size, trainer.method.buffers()))
    images, activations = kept_for_backward(trainer)
    return Measured(parameters, buffers, gradients, slots, images, activations)


def assert_planned(planned: Memory, found: Measured) -> None:
    for name, value in found._asdict().items():
        assert getattr(planned, name) == pytest.approx(value, rel=0.01), name
    always = found.parameters + found.buffers + found.slots + found.images
    # At the peak activations are still there, and gradients no more than all of them.
    least, most = always + found.activations, always + found.activations + found.gradients
    assert 0.85 * least < planned.total - planned.buckets < 1.15 * most


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_a_run_holds_what_was_planned(case: tuple[str, ...], tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, *SIZE, *_free(case), *case)
    planned = plan_of(trainer.config).memory
    assert_planned(planned, measured(trainer))


def _free(case: tuple[str, ...]) -> tuple[str, ...]:
    """Of frozen prototypes nobody has a gradient."""
    return ("method.freeze_prototypes_steps=0",) if "method=" not in "".join(case) else ()


DIVIDED = ("method=deepercluster", "head.super_clusters=1", "head.sub_clusters=20")


def _held_in_shards(folder: str, case: tuple[str, ...]) -> tuple[int, int, int]:
    return held(tiny_trainer(Path(folder), *SIZE, *case))


@pytest.mark.parametrize("more", [_free(SHARDED), DIVIDED], ids=" ".join)
def test_the_fullest_rank_holds_the_planned_shards(more: tuple[str, ...], tmp_path: Path) -> None:
    found = run_ranks(_held_in_shards, 2, str(tmp_path), (*SHARDED, *more))
    planned = tiny_plan(*SIZE, *SHARDED, *more).memory
    assert (planned.parameters, planned.gradients, planned.slots) == found[0]
    assert planned.gathered > 0 and planned.buckets == 0


def test_divided_classifiers_are_never_whole() -> None:
    """Neither they nor their gradient: no rank has at any time as much as they take."""
    case = (*SIZE, *DIVIDED, "head.sub_clusters=20000", "dataset.num_samples=80000")
    whole, divided = tiny_plan(*case), tiny_plan(*case, "launch.processes=8", "sharding=fsdp")
    classifiers = 4 * whole.parameters["head"]
    assert whole.memory.total > 3 * classifiers
    assert divided.memory.total < classifiers
