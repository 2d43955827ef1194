"""Memory of one GPU: what is always there, and the most that a step has beside it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from unlabeled.config.schema import PretrainConfig
from unlabeled.engine.precision import TYPES
from unlabeled.methods.base import Method
from unlabeled.planning.rehearsal import Rehearsal, size
from unlabeled.planning.shares import Shares

WIDE = 4
"""Bytes of a number in parameters, gradients and sums over ranks: float32."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank. Allocator, libraries and other ranks' messages come on top.

    parameters, buffers: of the method; gradients: all of them, as they are when backward is over;
    slots: of the optimizer; buckets: what data-parallel training averages gradients in; gathered:
    the units of sharded parameters that are whole at a time; images: the normalised views of a
    step; activations: kept for backward; step: the most that activations, gradients, gathered units
    and all that is made in passing take together, in forward and backward or in the update.
    """

    parameters: int
    buffers: int
    gradients: int
    slots: int
    buckets: int
    gathered: int
    images: int
    activations: int
    step: int

    @property
    def total(self) -> int:
        """The peak."""
        always = self.parameters + self.buffers + self.slots + self.buckets + self.images
        return always + self.step


def memory(config: PretrainConfig, method: Method, shares: Shares, seen: Rehearsal) -> Memory:
    """What a rank needs, from the shapes of its tensors and the step that was seen."""
    named = dict(method.named_parameters())
    own = {name: WIDE * shares.numbers(name, p) for name, p in named.items()}
    gradients = sum(own[name] for name, p in named.items() if p.requires_grad)
    slots = sum(n * shares.share(name, named[name]) for name, n in seen.slots.items())
    gathered = _gathered(config, named, shares)
    averaged = shares.world_size > 1 and not shares.sharded
    facts = method.facts
    pixels = sum(3 * view.size**2 for view in facts.views)
    return Memory(
        parameters=sum(own.values()),
        buffers=sum(size(buffer) for buffer in method.buffers()),
        gradients=gradients,
        slots=round(slots) + seen.counters,
        buckets=gradients if averaged else 0,
        gathered=gathered,
        images=WIDE * pixels * facts.micro_batch_size * config.accumulate_steps,
        activations=seen.kept,
        step=max(seen.peak + gathered, gradients + seen.update_peak),
    )


def _gathered(config: PretrainConfig, named: dict[str, nn.Parameter], shares: Shares) -> int:
    """Two units that follow each other, as one is fetched while the other computes; and the
    gradient of one, in the type in which it is computed and in that in which it is summed.
    """
    width = TYPES[config.precision].itemsize
    numbers = [sum(named[name].numel() for name in names) for _, names in shares.units]
    if not any(numbers):
        return 0
    fetched = max(one + other for one, other in pairwise([0, *numbers]))
    return width * fetched + (width + WIDE) * max(numbers)
