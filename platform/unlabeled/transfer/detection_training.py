"""Train a detector step by step, and continue a training that was interrupted."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from unlabeled.data.whole_files import write_file
from unlabeled.distributed import comm
from unlabeled.distributed.group import data_parallel, same_buffers
from unlabeled.engine.checkpoint_files import read
from unlabeled.errors import ConfigError, DivergenceError, EnvironmentProblem
from unlabeled.evaluation.finetuning import drawing
from unlabeled.transfer.detection_pictures import Picture, TrainingPictures
from unlabeled.transfer.detector import Detector

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30


@dataclass(frozen=True)
class Course:
    """How long and how fast a detector learns."""

    steps: int
    batch_size: int
    """Pictures a step, over all ranks."""
    rate: Callable[[int], float]
    """What the optimizer's rates are multiplied by in a step."""
    seed: int
    largest_gradient: float | None = None
    """Longer gradients are shortened to this norm."""


@dataclass(frozen=True)
class Keeping:
    """Where the state of a training goes, and how often."""

    file: Path
    steps: int


def train_detector(
    detector: Detector,
    optimizer: Optimizer,
    pictures: TrainingPictures,
    course: Course,
    *,
    device: torch.device,
    workers: int,
    keeping: Keeping | None = None,
) -> list[float]:
    """Train all steps, or those that the kept state lacks; the loss of every step, over all ranks.

    A pure function of its arguments: an interrupted training continues as if it had not been, and
    the global random numbers are left as they were.
    Under DDP gradients are averaged and every rank holds the buffers of rank 0 at the end.
    ConfigError if the batch does not divide among the ranks; DivergenceError, on all of them, when
    the loss is no longer finite.
    """
    ranks = comm.world_size()
    if course.batch_size % ranks:
        raise ConfigError(
            f"benchmark.batch_size: {course.batch_size} pictures do not divide among {ranks} "
            "processes"
        )
    base = [group["lr"] for group in optimizer.param_groups]
    losses = [] if keeping is None else _continued(detector, optimizer, keeping.file)
    parallel = data_parallel(detector.train(), device)
    said = time.monotonic()
    steps = range(len(losses), course.steps)
    batches = pictures.batches(
        steps, batch_size=course.batch_size, seed=course.seed, workers=workers
    )
    for step, batch in zip(steps, batches, strict=True):
        for group, lr in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = lr * course.rate(step)
        with drawing(device, course.seed, step, comm.rank()):
            losses.append(_step(parallel, optimizer, [each.to(device) for each in batch], course))
        if not math.isfinite(losses[-1]):
            raise DivergenceError(
                f"the loss of the detector became {losses[-1]} in step {step + 1}; lower "
                "benchmark.lr"
            )
        if keeping is not None and ((step + 1) % keeping.steps == 0 or step + 1 == course.steps):
            _keep(detector, optimizer, losses, keeping.file)
        if time.monotonic() - said > SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            log.info("detection %d/%d: loss %.3f", step + 1, course.steps, losses[-1])
    same_buffers(detector, ())
    return losses


def _step(parallel: nn.Module, optimizer: Optimizer, batch: list[Picture], course: Course) -> float:
    """One update; the mean loss over ranks."""
    loss = parallel(batch)
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    if course.largest_gradient is not None:
        nn.utils.clip_grad_norm_(parallel.parameters(), course.largest_gradient)
    optimizer.step()
    return float(comm.all_reduce_sum(loss.detach().clone())) / comm.world_size()


def _keep(detector: Detector, optimizer: Optimizer, losses: list[float], file: Path) -> None:
    if comm.rank() == 0:
        state = {
            "detector": detector.state_dict(),
            "optimizer": optimizer.state_dict(),
            "losses": losses,
        }
        write_file(file, lambda stream: torch.save(state, stream))


def _continued(detector: Detector, optimizer: Optimizer, file: Path) -> list[float]:
    """The losses of the steps that the kept state has seen, after loading it; none without one."""
    state = read(file) if file.is_file() else None
    losses: list[float] = [] if state is None else state["losses"]
    if len(set(comm.all_gather_objects(len(losses)))) > 1:
        raise EnvironmentProblem(
            f"benchmark.folder: {file} is not the same for all processes; name a folder that all "
            "machines share"
        )
    if state is not None:
        detector.load_state_dict(state["detector"])
        optimizer.load_state_dict(state["optimizer"])
        log.info("detection: continues after %d steps of %s", len(losses), file)
    return losses
