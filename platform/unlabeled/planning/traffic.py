"""What the ranks say to each other in a step: gradients, shards, statistics, and the method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch.nn.modules.batchnorm import _BatchNorm

from unlabeled.config.schema import PretrainConfig
from unlabeled.distributed.traffic import Collective
from unlabeled.engine.precision import TYPES
from unlabeled.methods.base import Method
from unlabeled.planning.rehearsal import Calls, Rehearsal, batch_norms
from unlabeled.planning.shares import Shares

WIDE = 4


@dataclass(frozen=True)
class Traffic:
    """Collectives of one sort in a step: how many, the bytes that a rank puts into them, and the
    bytes that it sends when the ranks form a ring.
    """

    what: str
    operation: str
    calls: int
    bytes: int
    sent: float


def step_traffic(
    config: PretrainConfig, method: Method, shares: Shares, seen: Rehearsal
) -> list[Traffic]:
    """All but a few numbers for the log, largest first; nothing where a rank is alone."""
    ranks = shares.world_size
    if ranks == 1:
        return []
    group = config.sync_batch_norm.group_size or ranks
    found = [
        *_summed("gradients", _gradients(config, method, shares, seen), ranks),
        *_summed("shards of parameters", _shards(config, method, shares, seen), ranks),
        *_summed("batch normalisation", _statistics(config, method, seen), group),
        *_summed(f"method {config.method.name}", seen.collectives, ranks),
    ]
    return sorted(found, key=lambda line: -line.sent)


def _summed(what: str, said: Iterable[Collective], ranks: int) -> Iterator[Traffic]:
    by_operation: dict[str, list[Collective]] = {}
    for each in said:
        by_operation.setdefault(each.operation, []).append(each)
    for operation, calls in by_operation.items():
        put_in = sum(each.bytes for each in calls)
        yield Traffic(what, operation, len(calls), put_in, sum(c.sent(ranks) for c in calls))


def _said(operation: str, numbers: int, width: int = WIDE) -> Collective:
    return Collective(operation, numbers, numbers * width, ())


def _gradients(
    config: PretrainConfig, method: Method, shares: Shares, seen: Rehearsal
) -> Iterator[Collective]:
    """Of what every rank holds, once a step; of the shards of a unit, once a micro-batch."""
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    whole = sum(p.numel() for name, p in trained.items() if name not in shares.sharded)
    if whole:
        yield _said("allreduce_", whole)
    for unit, names in shares.units:
        numbers = sum(_padded(shares, method, name) for name in names if name in trained)
        if numbers and seen.calls[unit].forward:
            for _ in range(config.accumulate_steps):
                yield _said("_reduce_scatter_base_", numbers)


def _shards(
    config: PretrainConfig, method: Method, shares: Shares, seen: Rehearsal
) -> Iterator[Collective]:
    """A unit is gathered for every forward pass and again for every backward pass.

    One whose inputs need no gradient stays gathered until the backward pass is over.
    """
    width = TYPES[config.precision].itemsize
    for unit, names in shares.units:
        own = sum(shares.numbers(name, method.get_parameter(name)) for name in names)
        calls = seen.calls[unit]
        backward = calls.forward - calls.first + min(calls.first, config.accumulate_steps)
        if own:
            for _ in range(calls.forward + calls.without_gradient + backward):
                yield _said("_allgather_base_", own, width)


def _padded(shares: Shares, method: Method, name: str) -> int:
    """Numbers of a parameter when every rank has as many rows."""
    return shares.world_size * shares.numbers(name, method.get_parameter(name))


def _statistics(config: PretrainConfig, method: Method, seen: Rehearsal) -> Iterator[Collective]:
    """Count, means and squares of C channels in every pass; in backward two sums a channel."""
    if not config.sync_batch_norm.enabled or config.sync_batch_norm.group_size == 1:
        return
    width = 8 if config.device == "cpu" else WIDE  # the layer for CPUs sends float64
    for layer in batch_norms(method):
        assert isinstance(layer, _BatchNorm)
        calls: Calls = seen.calls[layer]
        for _ in range(calls.forward + calls.without_gradient + calls.again):
            yield _said("allgather_", 1 + 2 * layer.num_features, width)
        for _ in range(calls.forward):
            yield _said("allreduce_", 2 * layer.num_features, width)
