"""All the numbers of a run that can be known before it is started."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from unlabeled.config.derived import Lengths, derive_lengths, stated_samples
from unlabeled.data.sources.base import Source
from unlabeled.data.transforms.base import Pipeline
from unlabeled.data.types import ViewSpec
from unlabeled.distributed.batch_norm import check_groups
from unlabeled.distributed.pretended import pretended_ranks
from unlabeled.engine.build import build_method
from unlabeled.engine.sharding import check_division
from unlabeled.methods.base import Method, Progress
from unlabeled.planning.computation import (
    days,
    multiply_adds_by_size,
    shortest_seconds,
)
from unlabeled.planning.gpus import GPUS
from unlabeled.planning.memory import Memory, memory
from unlabeled.planning.rehearsal import Rehearsal, rehearse, size
from unlabeled.planning.settings import PlanConfig
from unlabeled.planning.shares import shares_of
from unlabeled.planning.traffic import Traffic, step_traffic
from unlabeled.planning.unseen import Unseen
from unlabeled.registry import get


@dataclass(frozen=True)
class Plan:
    """The estimates; bytes and operations are of one rank and one step where nothing else is said.

    parameters: numbers of the backbone, of the head and of all else that is stored; trained and
    own: those that gradients reach, and those that the first rank holds. multiply_adds: of the
    backbone's forward pass of one crop, by its size. flops: of a step, backward and what is
    computed again included, 2 for a multiply-add; forward_flops: those of its forward passes, a
    teacher's too. shortest_seconds: of a step on a GPU that reaches all of its speed, alone;
    step_seconds and days: at the stated efficiency.
    """

    config: PlanConfig
    lengths: Lengths
    views: tuple[ViewSpec, ...]
    parameters: dict[str, int]
    trained: int
    own: int
    multiply_adds: dict[int, int]
    flops: int
    forward_flops: int
    memory: Memory
    traffic: list[Traffic]
    checkpoint_bytes: int
    shortest_seconds: float

    @property
    def images(self) -> int:
        """Images of a rank in a step."""
        return self.config.batch_size // int(self.config.launch.fields.processes)

    @property
    def multiply_adds_per_image(self) -> float:
        """Of the forward pass, over all crops."""
        return self.forward_flops / 2 / self.images

    @property
    def gpu_bytes(self) -> float:
        """Memory of a GPU, with what it holds beside tensors."""
        return self.memory.total + self.config.plan.overhead_gb * 1e9

    @property
    def step_seconds(self) -> float:
        """Of every rank."""
        return self.shortest_seconds / self.config.plan.efficiency

    @property
    def images_per_second(self) -> float:
        """Of all ranks."""
        return self.config.batch_size / self.step_seconds

    @property
    def read_bytes_per_second(self) -> float:
        """What storage must give to all ranks, if nothing of it is cached."""
        return self.images_per_second * self.config.plan.image_kb * 1e3

    @property
    def days(self) -> float:
        """The whole run without interruptions."""
        return days(self.lengths.last_step, self.step_seconds)


def make_plan(config: PlanConfig) -> Plan:
    """Build the run's method on the meta device and rehearse one step of its first rank.

    Takes no memory to speak of, needs no GPU, and opens the data set only to count its images.
    ConfigError for what `unlabeled pretrain` would refuse as well.
    """
    ranks = config.launch.fields.processes
    source, pipeline = _source(config), config.transform.build()
    lengths = derive_lengths(config, len(source))
    if config.sync_batch_norm.enabled:
        check_groups(ranks, config.sync_batch_norm.group_size)
    with pretended_ranks(ranks):
        method = _on_meta(config, source, pipeline, lengths)
        shares = shares_of(config, method)
        if shares.sharded:
            check_division(config, method)
            method.divide()
        last = Progress(lengths.total_steps - 1, lengths.steps_per_epoch, lengths.total_steps)
        multiply_adds = _by_size(config, pipeline.views)
        seen = rehearse(config, method, shares, last)
    named = list(method.named_parameters())
    return Plan(
        config=config,
        lengths=lengths,
        views=pipeline.views,
        parameters=_parameters(method),
        trained=sum(p.numel() for _, p in named if p.requires_grad),
        own=sum(shares.numbers(name, p) for name, p in named),
        multiply_adds=multiply_adds,
        flops=sum(operation.flops for operation in seen.operations),
        forward_flops=seen.forward_flops,
        memory=memory(config, method, shares, seen),
        traffic=step_traffic(config, method, shares, seen),
        checkpoint_bytes=_checkpoint(method, seen, ranks),
        shortest_seconds=shortest_seconds(seen.operations, GPUS[config.plan.gpu]),
    )


def _source(config: PlanConfig) -> Source:
    images = config.plan.images or config.samples
    if not get("dataset", config.dataset.name).counted:
        images = stated_samples(config)
    if images is not None:
        return Unseen(images, config.plan.classes)
    source: Source = config.dataset.build(split="train")
    return source


def _on_meta(config: PlanConfig, source: Source, pipeline: Pipeline, lengths: Lengths) -> Method:
    """As pretraining builds it, but for batch normalisation over ranks, which needs them."""
    alone = replace(config.sync_batch_norm, enabled=False)
    with torch.device("meta"):
        return build_method(replace(config, sync_batch_norm=alone), source, pipeline, lengths)


def _by_size(config: PlanConfig, views: tuple[ViewSpec, ...]) -> dict[int, int]:
    with torch.device("meta"):
        backbone = config.backbone.build()
    return multiply_adds_by_size(backbone, views)


def _parameters(method: Method) -> dict[str, int]:
    parts = {"backbone": method.backbone, "head": method.head}
    found = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    others = sum(p.numel() for p in method.parameters()) - sum(found.values())
    return {**found, "others": others}


def _checkpoint(method: Method, seen: Rehearsal, ranks: int) -> int:
    """Parameters, buffers (those that differ between ranks once for each) and optimizer slots."""
    own = sum(size(method.get_buffer(name)) for name in method.rank_buffers)
    state = sum(size(tensor) for tensor in method.state_dict().values())
    return state + own * (ranks - 1) + sum(seen.slots.values()) + seen.counters
