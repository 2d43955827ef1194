"""Numbers that follow from the config and the size of the data: pure functions, for the record."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unlabeled.config.schema import PretrainConfig
from unlabeled.errors import ConfigError
from unlabeled.registry import get

# Of a run by samples, which may be far less than an epoch: as often it says how it is doing.
ROUNDS = 10


@dataclass(frozen=True)
class Lengths:
    """How long a run is, in steps, and how a batch is divided."""

    num_samples: int
    steps_per_epoch: int
    total_steps: int
    last_step: int
    """Where this run stops: `max_steps` or the total."""
    round_steps: int
    """Steps between two turns of meters, probes and the like: an epoch or a part of it."""
    micro_batch_size: int
    """Images a rank sees in one forward pass."""
    arithmetic: dict[str, str]


def derive_lengths(config: PretrainConfig, num_samples: int) -> Lengths:
    """Steps per epoch (incomplete batches are dropped), total steps, images per forward pass."""
    batch = config.batch_size
    if num_samples < batch:
        raise ConfigError(
            f"batch_size: {batch} is more than the {num_samples} training images, so an epoch "
            f"would have no step; give batch_size={num_samples} or less"
        )
    steps_per_epoch = num_samples // batch
    if config.epochs is not None:
        total = max(1, round(config.epochs * steps_per_epoch))
        length = f"{config.epochs:g} epochs x {steps_per_epoch} steps = {total}"
    else:
        samples = config.samples or 0
        total = max(1, math.ceil(samples / batch))
        length = f"{samples} samples / {batch} = {total}"
    round_steps, rounds = _round_steps(config, steps_per_epoch, total)
    processes = config.launch.fields.processes
    micro = batch // (processes * config.accumulate_steps)
    last = total if config.max_steps is None else min(total, config.max_steps)
    return Lengths(
        num_samples=num_samples,
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
        last_step=last,
        round_steps=round_steps,
        micro_batch_size=micro,
        arithmetic={
            "steps_per_epoch": f"{num_samples} images // {batch} = {steps_per_epoch}",
            "total_steps": length,
            **rounds,
            "images_per_forward": (
                f"{batch} / ({processes} processes x {config.accumulate_steps} micro-batches) "
                f"= {micro}"
            ),
        },
    )


def stated_samples(config: PretrainConfig) -> int:
    """The length of a data set that nobody counted: what the run reads of it, in whole batches.

    ConfigError if the run has no length in samples, or an order that jumps over the data set.
    """
    name, sampler = config.dataset.name, config.sampler.name
    problems = []
    if config.samples is None:
        problems.append(
            f"samples: dataset={name} does not know how many images it holds; give epochs=null "
            "samples=N, or index its shards (`unlabeled index build`) for dataset=index"
        )
    if not get("sampler", sampler).forward:
        problems.append(
            f"sampler: {sampler} jumps over the whole data set, and dataset={name} is read from "
            "its beginning on; use sampler=windowed or sampler=sequential"
        )
    if problems:
        raise ConfigError(problems)
    return math.ceil((config.samples or 0) / config.batch_size) * config.batch_size


def _round_steps(
    config: PretrainConfig, steps_per_epoch: int, total: int
) -> tuple[int, dict[str, str]]:
    """Steps of a round, and its arithmetic where it is no epoch."""
    batch = config.batch_size
    if config.round_samples is not None:
        steps = math.ceil(config.round_samples / batch)
        return steps, {"round_steps": f"{config.round_samples} samples / {batch} = {steps}"}
    steps = math.ceil(total / ROUNDS)
    if config.samples is None or steps >= steps_per_epoch:
        return steps_per_epoch, {}
    return steps, {"round_steps": f"{total} steps / {ROUNDS} rounds = {steps}"}
