"""A run that goes on with another number of processes trains as one that was left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests_support.command import TINY
from tests_support.notes import notes
from tests_support.ranks import run_ranks
from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import PretrainConfig
from unlabeled.engine import checkpoint
from unlabeled.engine.checkpoint_files import read
from unlabeled.engine.pretrain import pretrain
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.registry import get, names

CPU = torch.device("cpu")
IMAGES, BATCH, MICRO_BATCH, STEPS_PER_EPOCH = 96, 16, 8, 6
# A head on pixels, and SGD: a deep network multiplies the last bits by ten at every step, and Adam
# divides noise by its own size where a gradient is zero (a bias before batch normalisation).
SMALL = [
    *(key for key in TINY if not key.startswith(("backbone.", "transform."))),
    *("backbone=raw_pixels", "backbone.image_size=16", "hooks.export=null", "hooks.knn_probe=null"),
    "transform.crops=[{count: 2, size: 16, scale: [0.3, 1.0], role: global, operations: null}, "
    "{count: 1, size: 16, scale: [0.1, 0.3], role: local, operations: null}]",
    *("optimizer=sgd", "scheduler.lr=0.05", "meters={}"),
    *(f"dataset.num_samples={IMAGES}", f"batch_size={BATCH}", "accumulate_steps=2"),
]
QUEUE = ("method=swav", "method.queue_start_epoch=0")
# 7 steps push 14 micro-batches, 9 push 18: the queue of 16 fills on two processes.
CASES = {
    **{name: (f"method={name}",) for name in names("method")},
    # Its classifiers take 16 times the gradient, and would run away from pixels as they are.
    "deepercluster": ("method=deepercluster", "scheduler.lr=0.001"),
    "full queue": (*QUEUE, f"method.queue_samples={3 * MICRO_BATCH}"),
    "filling queue": (*QUEUE, f"method.queue_samples={16 * MICRO_BATCH}"),
    "codes of two micro-batches": (
        *(*QUEUE, f"method.queue_samples={5 * MICRO_BATCH}"),
        "method.codes_over=accumulated_batch",
    ),
}
DIVIDED = (
    *("sharding=fsdp", "method=deepercluster", "scheduler.lr=0.001", "method.every_epochs=1"),
    *("head.rotations=1", "head.super_clusters=2", "head.sub_clusters=6"),
    "assigner.whitening_dim=null",  # of fewer images than dimensions it makes much of roundings
    # An image that comes twice in a batch may exchange its views: these have no randomness.
    "transform.crops=[{count: 1, size: 16, scale: [1.0, 1.0], role: global, operations: []}]",
)
Schedule = list[tuple[int, int]]  # processes, and the step they train to
WITHIN_AN_EPOCH: Schedule = [(1, 7), (2, 9), (4, 11), (1, 14)]
ACROSS_EPOCHS: Schedule = [(1, 3), (2, 8), (4, 14), (1, 18)]
# Sums of up to 768 products in another order differ by some sqrt(768) roundings of 6e-8, 2e-6 of
# the largest term; ten steps of 0.05 times such a gradient stay below. Found: 6e-7.
TOLERANCE = 5e-6
# A bias before batch normalisation that begins at 0 stays nothing but rounding; next to weights,
# which begin with a deviation of 0.02 and more, it is that of a number so large.
LEAST = 0.01


def config_of(run: Path, *overrides: str) -> PretrainConfig:
    import tests_support.note_samples  # noqa: F401 - registers the hook

    note = f"+hooks.note={{name: note_samples, folder: '{run}/notes'}}"
    composed = compose_config("pretrain", [*SMALL, *overrides, note])
    return build_config(
        PretrainConfig, composed.data | {"run": {"dir": str(run)}}, composed.problems
    )


def _trains(config: PretrainConfig) -> None:
    import tests_support.note_samples  # noqa: F401 - registers the hook

    pretrain(config, CPU)


def trained(run: Path, schedule: Schedule, overrides: tuple[str, ...]) -> Path:
    """The run's last checkpoint."""
    (run / "notes").mkdir(parents=True)
    for processes, until in schedule:
        own = (f"launch.processes={processes}", f"max_steps={until}")
        run_ranks(_trains, processes, config_of(run, *overrides, *own))
    newest = checkpoint.newest(run / "checkpoints")
    assert newest is not None
    assert newest.name == f"{schedule[-1][1]:08d}"
    return newest


def images_by_step(run: Path) -> dict[int, list[int]]:
    """The images of each step, in the order in which one process would have them."""
    steps: dict[int, list[int]] = {}
    for note in notes(run / "notes"):
        steps.setdefault(note.step, []).extend(note.indices)
    return steps


def assert_every_image_once(steps: dict[int, list[int]]) -> None:
    """In every epoch that came to its end."""
    assert list(steps) == list(range(len(steps)))
    for first in range(0, len(steps) - STEPS_PER_EPOCH + 1, STEPS_PER_EPOCH):
        epoch = [i for step in range(first, first + STEPS_PER_EPOCH) for i in steps[step]]
        assert sorted(epoch) == list(range(IMAGES))


def assert_close(ours: dict[Any, Tensor], theirs: dict[Any, Tensor], scale: float = 0.0) -> None:
    """Whole numbers are equal, others but for roundings of the largest one or of `scale`."""
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        if tensor.is_floating_point() and tensor.numel():
            size = scale or max(float(tensor.abs().max()), LEAST)
            assert float((ours[name] - tensor).abs().max()) <= TOLERANCE * size, name
        else:
            assert torch.equal(ours[name], tensor), name


def momenta(checkpoint: Path) -> dict[int, Tensor]:
    slots = read(checkpoint / "shared.pt")["optimizer"]["state"]
    return {number: slot["momentum_buffer"] for number, slot in slots.items()}


def records(run: Path) -> dict[int, dict[str, Any]]:
    return {r["step"]: r for r in RunDirectory(run).metrics() if r["phase"] == "train"}


def assert_same_training(elastic: Path, alone: Path) -> None:
    """Weights, buffers, momenta, losses and learning rates."""
    assert_close(read(elastic / "shared.pt")["method"], read(alone / "shared.pt")["method"])
    assert_close(read(elastic / "rank0000.pt")["buffers"], read(alone / "rank0000.pt")["buffers"])
    # The momentum of a bias before batch normalisation is nothing but rounding.
    largest = max(float(momentum.abs().max()) for momentum in momenta(alone).values())
    assert largest > 0
    assert_close(momenta(elastic), momenta(alone), scale=largest)
    ours, theirs = (records(end.parents[1]) for end in (elastic, alone))
    assert ours.keys() == theirs.keys()
    for step, record in theirs.items():
        assert (ours[step]["lr"], ours[step]["samples"]) == (record["lr"], record["samples"])
        assert ours[step]["loss"] == pytest.approx(record["loss"], rel=TOLERANCE)


def compare(
    tmp_path: Path, schedule: Schedule, overrides: tuple[str, ...], in_order: bool = True
) -> None:
    alone = trained(tmp_path / "alone", [(1, schedule[-1][1])], overrides)
    elastic = trained(tmp_path / "elastic", schedule, overrides)
    steps = images_by_step(tmp_path / "elastic")
    others = images_by_step(tmp_path / "alone")
    assert in_order or steps != others
    for found in (steps, others):
        found.update(found if in_order else {step: sorted(found[step]) for step in found})
    assert steps == others
    if not get("method", config_of(tmp_path, *overrides).method.name).chooses_samples:
        assert_every_image_once(steps)
    taken_part = {(note.step, note.rank) for note in notes(tmp_path / "elastic" / "notes")}
    starts = [0, *(until for _, until in schedule)]
    assert taken_part == {
        (step, rank)
        for first, (ranks, until) in zip(starts, schedule, strict=False)
        for step in range(first, until)
        for rank in range(ranks)
    }
    assert_same_training(elastic, alone)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_one_two_four_and_one_process_train_as_one_does(case: str, tmp_path: Path) -> None:
    compare(tmp_path, WITHIN_AN_EPOCH, CASES[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", ["filling queue", "sela_v2", "simclr"])
def test_every_number_of_processes_may_begin_an_epoch(case: str, tmp_path: Path) -> None:
    """DeepCluster-v2 does too, but k-means then starts from other images: those of rank 0."""
    compare(tmp_path, ACROSS_EPOCHS, CASES[case])


@pytest.mark.slow
def test_divided_classifiers_go_on_with_any_number_of_processes(tmp_path: Path) -> None:
    """Of two super-classes two ranks have one each, four ranks half of one, and one rank both."""
    compare(tmp_path, [(2, 8), (4, 13), (1, 14)], DIVIDED, in_order=False)
