"""What the ranks say to each other in a step and at the start of an epoch, to the byte.

Sizes are chosen so that no two things have equally many elements: 6 images a rank, 3 views,
embeddings of 19 numbers, prototype sets of 7 and 11, batch norms of 8 to 64 channels and 13.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests_support.in_process import tiny_trainer
from tests_support.ranks import run_ranks
from unlabeled.distributed.batch_norm import CpuSyncBatchNorm
from unlabeled.distributed.traffic import Collective, counted
from unlabeled.engine.trainer import Trainer
from unlabeled.hooks.base import Hook
from unlabeled.methods.queue import FeatureQueue
from unlabeled.registry import names

RANKS, VIEWS, RESOLUTIONS, DIM = 2, 3, 2, 19
CONTROL_NUMBERS = 4
"""Numbers of 4 to 8 bytes that the engine may exchange in a step: the loss, scalars, signals."""
NOT_EVERY_STEP = {"step 1", "step 3"}
"""DDP arranges its buckets in step 1; meters and a checkpoint end the epoch and the run."""
COMMON = (
    *("launch.processes=2", "hooks.knn_probe=null", "checkpoint.every_epochs=null", "max_steps=4"),
    *(f"scale.projection_dim={DIM}", "scale.hidden_dim=13", "backbone.stages=1"),
    "dataset.num_samples=24",
)
CLUSTERING = ("head.num_prototypes=[7, 11]",)
TWO_LEVELS = (
    *("head.super_clusters=2", "head.sub_clusters=3", "assigner.iterations=1"),
    "method.every_epochs=1",
)


class Sent(NamedTuple):
    """A collective as the formulas state it."""

    operation: str
    elements: int
    bytes: int


def reduced(elements: int, width: int = 4) -> Sent:
    return Sent("allreduce_", elements, elements * width)


def gathered(elements: int, width: int = 4) -> Sent:
    return Sent("allgather_", elements, elements * width)


def copied(elements: int, width: int = 4) -> Sent:
    return Sent("broadcast_", elements, elements * width)


def nothing(trainer: Trainer, numbers: dict[str, float] | None = None) -> list[Sent]:
    return []


def one_vector_of_prototypes_per_iteration(trainer: Trainer) -> list[Sent]:
    """Sinkhorn runs once for each prototype set and assign crop of what it balances."""
    config = trainer.config
    together = config.method.fields.codes_over == "accumulated_batch"
    calls = 1 if together else config.accumulate_steps
    times = calls * len(config.method.fields.crops_for_assign) * config.assigner.fields.iterations
    found = [reduced(count) for count in config.head.fields.num_prototypes for _ in range(times)]
    if together and config.accumulate_steps > 1:  # the passes that collect the scores
        found += batch_norm(trainer, config.accumulate_steps * RESOLUTIONS, backward=False)
    return found


def all_embeddings_and_their_gradients(trainer: Trainer) -> list[Sent]:
    config = trainer.config
    if config.loss.fields.negatives == "local":
        return []
    own = VIEWS * config.batch_size // (RANKS * config.accumulate_steps) * DIM
    return [gathered(own), reduced(RANKS * own)] * config.accumulate_steps


def keys_of_all_ranks(trainer: Trainer) -> list[Sent]:
    """And the images that they are made of, where batch normalisation is shuffled."""
    config = trainer.config
    passes = len(config.method.fields.crops_for_keys) * config.accumulate_steps
    own = config.batch_size // (RANKS * config.accumulate_steps)
    found = [gathered(own * DIM)] * passes
    if config.sync_batch_norm.enabled:
        return found + batch_norm(trainer, passes, passes, backward=False)
    size = trainer.method.facts.views[0].size
    return found + [gathered(own * 3 * size**2)] * passes


def statistics_of_teacher_and_predictor(trainer: Trainer) -> list[Sent]:
    """The teacher's, of a pass of the global crops; then those of the predictor's hidden layer."""
    passes = trainer.config.accumulate_steps
    found = batch_norm(trainer, passes, passes, backward=False)
    return found + batch_norm(trainer, passes, backward=True, parts=("predictor",))


def sums_and_counts_of_clusters(trainer: Trainer, numbers: dict[str, float]) -> list[Sent]:
    found = images_and_their_labels(trainer)
    for count in trainer.config.head.fields.num_prototypes:
        found += [copied(1, 8), copied(count * DIM)]  # rows of rank 0, to start from
        found += [reduced(count * DIM, 8), reduced(count, 8)] * (
            trainer.config.assigner.fields.iterations
        )
        found += [reduced(2, 8), reduced(count, 8)]  # objective and empty clusters, for the log
    return found


def sums_of_prototypes(trainer: Trainer, numbers: dict[str, float]) -> list[Sent]:
    found = images_and_their_labels(trainer)
    for number, count in enumerate(trainer.config.head.fields.num_prototypes):
        iterations = int(numbers[f"sinkhorn_iterations_{number}"])
        checks = -(-iterations // trainer.config.assigner.fields.check_every)
        found += [reduced(1, 8), reduced(count)]  # the number of rows, the maxima
        found += [reduced(count, 8)] * (1 + iterations) + [reduced(1)] * checks
    return found


def kmeans(clusters: int, dim: int, iterations: int) -> list[Sent]:
    """Where no cluster is split at the end."""
    found = [gathered(1, 8), reduced(clusters * dim)]  # how many rows, and those to start from
    found += [reduced(2, 8)] * (iterations + 1)  # the objective, and how many rows changed
    found += [reduced(clusters * dim, 8), reduced(clusters, 8)] * iterations
    return [*found, reduced(clusters, 8)]


def covariance_and_clusters(trainer: Trainer, numbers: dict[str, float]) -> list[Sent]:
    """Of whitened features, on one level or on two, and the labels of all images."""
    head, assigner = trainer.config.head.fields, trainer.config.assigner.fields
    dim = trainer.method.head.output_dim
    kept = min(dim, assigner.whitening_dim)
    found = [reduced(1), reduced(dim, 8), reduced(dim * dim, 8)]  # count, mean, covariance
    found += [copied(dim * kept), reduced(trainer.method.facts.num_samples, 8)]
    if trainer.config.method.name == "deepcluster":
        return found + kmeans(head.outputs, kept, assigner.iterations)
    for clusters in [head.super_clusters] + [head.sub_clusters] * head.super_clusters:
        found += kmeans(clusters, kept, assigner.iterations)
    return found


def images_and_their_labels(trainer: Trainer) -> list[Sent]:
    """Of every rank's bank, per prototype set; and a forward pass of each assign crop, once."""
    config = trainer.config
    steps = trainer.settings.steps_per_epoch
    slots = steps * config.batch_size // RANKS
    found = [gathered(slots, 8)] * 2 * len(config.head.fields.num_prototypes)
    if trainer.progress.epoch == 0:
        passes = steps * config.accumulate_steps * len(config.method.fields.crops_for_assign)
        found += batch_norm(trainer, passes, passes, backward=False)
    return found


def center_and_statistics_of_the_teacher(trainer: Trainer) -> list[Sent]:
    """The sum of the step's scores; the teacher normalises the global views, without backward."""
    found = [reduced(trainer.config.head.fields.num_outputs)]
    for layer in trainer.method.get_submodule("teacher").modules():
        if isinstance(layer, CpuSyncBatchNorm):
            found += [gathered(1 + 2 * layer.num_features, 8)] * trainer.config.accumulate_steps
    return found


class Formula(NamedTuple):
    """What a method sends beside gradients and batch normalisation's statistics."""

    step: Callable[[Trainer], list[Sent]]
    epoch: Callable[[Trainer, dict[str, float]], list[Sent]]


FORMULAS = {
    "swav": Formula(one_vector_of_prototypes_per_iteration, nothing),
    "deepcluster_v2": Formula(nothing, sums_and_counts_of_clusters),
    "sela_v2": Formula(nothing, sums_of_prototypes),
    "simclr": Formula(all_embeddings_and_their_gradients, nothing),
    "dino": Formula(center_and_statistics_of_the_teacher, nothing),
    "deepcluster": Formula(nothing, covariance_and_clusters),
    "deepercluster": Formula(nothing, covariance_and_clusters),
    "rotnet": Formula(nothing, nothing),
    "supervised": Formula(nothing, nothing),
    "moco_v2": Formula(keys_of_all_ranks, nothing),
    "byol": Formula(statistics_of_teacher_and_predictor, nothing),
}
LARGER = ("batch_size=24", "dataset.num_samples=48")
CASES = [
    ("swav", *CLUSTERING),
    ("swav", *CLUSTERING, "method.queue_samples=24", "method.queue_start_epoch=0"),
    ("swav", *CLUSTERING, "method.crops_for_assign=[1]", "assigner.iterations=5"),
    ("swav", *CLUSTERING, "accumulate_steps=2"),
    ("swav", *CLUSTERING, "accumulate_steps=2", "method.codes_over=accumulated_batch"),
    ("swav", *CLUSTERING, "sync_batch_norm.enabled=false", *LARGER),
    ("deepcluster_v2", *CLUSTERING, "assigner.iterations=4"),
    ("deepcluster_v2", *CLUSTERING, "method.crops_for_assign=[0]", "accumulate_steps=2"),
    ("sela_v2", *CLUSTERING),
    ("simclr",),
    ("simclr", "accumulate_steps=2"),
    ("simclr", "loss.negatives=local"),
    ("dino", "head.num_outputs=7", "accumulate_steps=2"),
    ("deepcluster", "head.outputs=7", "assigner.iterations=1"),
    ("rotnet", "method.views=3"),
    ("deepercluster", *TWO_LEVELS),
    ("deepercluster", *TWO_LEVELS, "assigner.whitening_dim=5"),
    ("supervised",),
    ("moco_v2",),
    ("moco_v2", "method.crops_for_keys=[0, 1]", "accumulate_steps=2"),
    ("moco_v2", "sync_batch_norm.enabled=false"),
    ("byol",),
]


def batch_norm(
    trainer: Trainer,
    backbone_passes: int,
    head_passes: int | None = None,
    *,
    backward: bool,
    parts: tuple[str, ...] = ("backbone", "head"),
) -> list[Sent]:
    """Count, means and squares of C channels in float64; in backward two sums a channel."""
    passes = dict.fromkeys(parts, head_passes or backbone_passes // RESOLUTIONS)
    passes[parts[0]] = backbone_passes
    found = []
    for part, times in passes.items():
        for layer in getattr(trainer.method, part).modules():
            if isinstance(layer, CpuSyncBatchNorm):
                both = [gathered(1 + 2 * layer.num_features, 8)]
                both += [reduced(2 * layer.num_features, 8)] if backward else []
                found += both * times
    return found


def gradients(trainer: Trainer) -> int:
    return sum(p.numel() for p in trainer.method.parameters() if p.requires_grad)


class Listener(Hook):
    """Cuts what was sent into steps and starts of epochs, each beside its formula."""

    def __init__(self, found: list[Collective]) -> None:
        self.found = found
        self.pieces: dict[str, tuple[list[Collective], list[Sent]]] = {}

    def before_fit(self, trainer: Trainer) -> None:
        self.found.clear()

    def epoch_started(self, trainer: Trainer, record: dict[str, Any]) -> None:
        expected = FORMULAS[trainer.config.method.name].epoch(trainer, record)
        self._cut(f"epoch {trainer.progress.epoch}", expected)

    def step_done(self, trainer: Trainer) -> None:
        expected = FORMULAS[trainer.config.method.name].step(trainer)
        times = trainer.config.accumulate_steps * RESOLUTIONS
        self._cut(f"step {trainer.step - 1}", expected + batch_norm(trainer, times, backward=True))

    def _cut(self, name: str, expected: list[Sent]) -> None:
        self.pieces[name] = (self.found.copy(), expected)
        self.found.clear()


def listen(folder: str, case: tuple[str, ...]) -> tuple[Listener, int, bool]:
    """Four steps of two an epoch; the hook, the number of trained parameters, the queue's state."""
    method, *overrides = case
    with counted() as found:
        trainer = tiny_trainer(Path(folder), f"method={method}", *COMMON, *overrides)
        listener = Listener(found)
        trainer.hooks.append(listener)
        trainer.fit()
    queue = getattr(trainer.method, "queue", None)
    in_use = isinstance(queue, FeatureQueue) and queue.contents(0) is not None
    return listener, gradients(trainer), in_use


def of_ddp(collective: Collective) -> bool:
    """DDP reduces gradients in C++, called by the engine's backward pass and no module of ours."""
    return not collective.callers[0].startswith("unlabeled.distributed")


def as_stated(found: list[Collective]) -> Counter[Sent]:
    return Counter(Sent(c.operation, c.elements, c.bytes) for c in found)


def test_every_method_declares_what_it_sends() -> None:
    without = sorted(set(names("method")) - FORMULAS.keys())
    assert not without, f"state in FORMULAS what {without} send, and give each a line in CASES"
    assert FORMULAS.keys() == {method for method, *_ in CASES}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_ranks_say_this_and_nothing_else(case: tuple[str, ...], tmp_path: Path) -> None:
    for listener, parameters, queue_in_use in run_ranks(listen, RANKS, str(tmp_path), case):
        assert queue_in_use == any("queue_samples" in choice for choice in case)
        assert {"step 0", "step 2"} < listener.pieces.keys()
        assert ("epoch 1" in listener.pieces) == (FORMULAS[case[0]].epoch is not nothing)
        for name, (found, expected) in listener.pieces.items():
            if name in NOT_EVERY_STEP:
                continue
            of_step = name.startswith("step")
            gradient = [c for c in found if of_step and of_ddp(c)]
            control = [c for c in found if of_step and c.elements <= 2]
            rest = [c for c in found if c not in gradient and c not in control]
            assert as_stated(rest) == Counter(expected), f"{name} of {case}"
            if of_step:
                assert {c.operation for c in gradient} == {"allreduce_"}
                assert sum(c.elements for c in gradient) == parameters
                assert sum(c.bytes for c in gradient) == 4 * parameters
                assert sum(c.elements for c in control) <= CONTROL_NUMBERS
                assert all(c.bytes in (4 * c.elements, 8 * c.elements) for c in control)
