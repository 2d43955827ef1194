"""One training step of one rank, on tensors without memory: what it keeps, computes and says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unlabeled.config.schema import PretrainConfig
from unlabeled.data.types import Batch
from unlabeled.distributed.shards import local
from unlabeled.distributed.traffic import Collective, counted
from unlabeled.engine.activation_checkpointing import checkpoint_activations
from unlabeled.engine.precision import TYPES, Precision
from unlabeled.methods.base import Method, Progress
from unlabeled.models.stages import stages
from unlabeled.planning.live_storages import LiveStorages
from unlabeled.planning.operations import Operation, Operations
from unlabeled.planning.shares import Shares
from unlabeled.planning.without_memory import empty_tensors, without_memory

CPU = torch.device("cpu")
"""The device that tensors without memory pretend to lie on."""


@dataclass(frozen=True)
class Calls:
    """How often a module ran.

    forward: in passes that keep something for backward; first: those of them whose inputs need no
    gradient, as images do not; without_gradient: in other passes; again: once more in backward
    (activation checkpointing).
    """

    forward: int = 0
    first: int = 0
    without_gradient: int = 0
    again: int = 0


@dataclass(frozen=True)
class Rehearsal:
    """What a step was seen to do. Bytes are of this rank, without parameters and images.

    kept: what the forward pass of a micro-batch leaves for backward; peak: the most that forward
    and backward have at once, gradients of earlier layers included; update_peak: what the
    optimizer's step makes in passing; slots: bytes that the optimizer keeps in the shape of each
    parameter, whole, by its name; counters: other bytes that it keeps; operations: of the step
    without the optimizer's, and forward_flops those of its forward passes; collectives: what the
    method itself says to the other ranks; calls: of every unit that shards gather, and of every
    batch norm.
    """

    kept: int
    peak: int
    update_peak: int
    slots: Mapping[str, int]
    counters: int
    operations: tuple[Operation, ...]
    forward_flops: int
    collectives: tuple[Collective, ...]
    calls: Mapping[nn.Module, Calls]


def rehearse(
    config: PretrainConfig, method: Method, shares: Shares, progress: Progress
) -> Rehearsal:
    """Take one step of `method`, which is on the meta device, as the config wants it.

    Batch normalisation over ranks, the gathering of shards and the averaging of gradients are left
    out: how often they would be needed is counted instead. The method's tensors are others
    afterwards, of no use any more.
    """
    divide = _division(method, shares)
    with without_memory():
        empty_tensors(method)
        update_peak, slots, counters = _update(config, method, shares)
        _gathered_in_the_type_of_the_forward_pass(config, method, shares)
        if config.activation_checkpointing == "stage":
            checkpoint_activations(stages(method.backbone))
        divide()
        batches = [_batch(method) for _ in range(config.accumulate_steps)]
        storages, operations = LiveStorages(), Operations()
        own = map(local, method.parameters())
        storages.ignore([*own, *method.buffers(), *_tensors(batches)])
        watched = [unit for unit, _ in shares.units] + batch_norms(method)
        calls = _CallCounter(watched, operations)
        with calls, counted() as collectives, storages, operations:
            _hold_gradients(method, shares, storages)
            kept = _forward_backward(config, method, batches, progress, calls)
    return Rehearsal(
        kept=kept,
        peak=storages.peak,
        update_peak=update_peak,
        slots=slots,
        counters=counters,
        operations=tuple(operations.done),
        forward_flops=operations.flops - calls.backward_flops,
        collectives=tuple(collectives),
        calls=dict(calls.found),
    )


def batch_norms(method: nn.Module) -> list[nn.Module]:
    """The layers whose statistics may span ranks."""
    return [layer for layer in method.modules() if isinstance(layer, _BatchNorm)]


def _update(
    config: PretrainConfig, method: Method, shares: Shares
) -> tuple[int, dict[str, int], int]:
    """What the second of two optimizer steps makes in passing, and what the first one left."""
    trained = [(name, p) for name, p in method.named_parameters() if p.requires_grad]
    optimizer: torch.optim.Optimizer = config.optimizer.build(named_parameters=trained)
    for _, parameter in trained:
        parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    kept = {name: list(_tensors(optimizer.state[p])) for name, p in trained}
    slots = {
        name: sum(size(slot) for slot in kept[name] if slot.shape == p.shape) for name, p in trained
    }
    counters = sum(size(slot) for each in kept.values() for slot in each) - sum(slots.values())
    with LiveStorages() as storages:
        storages.ignore(_tensors([kept, [(p, p.grad) for _, p in trained]]))
        optimizer.step()
    held = sum(shares.numbers(name, p) for name, p in trained)
    for _, parameter in trained:
        parameter.grad = None
    return storages.peak * held // sum(p.numel() for _, p in trained), slots, counters


def _gathered_in_the_type_of_the_forward_pass(
    config: PretrainConfig, method: Method, shares: Shares
) -> None:
    """So that autocast need not copy them, as it must copy weights in float32."""
    gathered = {method.get_parameter(name) for name in shares.sharded - shares.divided}
    empty_tensors(method, lambda p: TYPES[config.precision] if p in gathered else p.dtype)


def _division(method: Method, shares: Shares) -> Callable[[], object]:
    """What leaves of the parameters that are never gathered the rows of the first rank.

    It is made where tensors have values, as those in which the ranks are listed need them.
    """
    if not shares.divided:
        return lambda: None
    from unlabeled.distributed.sharding import device_mesh, divide_parameters

    mesh = device_mesh(CPU)
    return lambda: divide_parameters(method, set(map(method.get_parameter, shares.divided)), mesh)


def _batch(method: Method) -> Batch:
    images = method.facts.micro_batch_size
    return Batch(
        views=[torch.empty(images, 3, view.size, view.size) for view in method.facts.views],
        indices=torch.zeros(images, dtype=torch.int64),
        labels=torch.zeros(images, dtype=torch.int64) if method.needs_labels else None,
    )


def _hold_gradients(method: Method, shares: Shares, storages: LiveStorages) -> None:
    """Keep of every gradient no more than this rank does, from when it is there to the end."""
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            own = 4 * shares.numbers(name, parameter)
            held = _Held(own, storages)
            parameter.register_post_accumulate_grad_hook(held)  # type: ignore[no-untyped-call]


class _Held:
    """Counts the bytes of a gradient once, and lets go of the gradient."""

    def __init__(self, own: int, storages: LiveStorages) -> None:
        self._left, self._storages = own, storages

    def __call__(self, parameter: Tensor) -> None:
        parameter.grad = None
        self._storages.hold(self._left)
        self._left = 0


def _forward_backward(
    config: PretrainConfig,
    method: Method,
    batches: Sequence[Batch],
    progress: Progress,
    calls: _CallCounter,
) -> int:
    """A step as the engine takes it, but for the optimizer; what a forward pass keeps at most."""
    precision = Precision(config.precision, CPU)
    method.train()
    with torch.no_grad(), precision.autocast():
        method.before_step(progress, batches)
    kept, outputs = 0, []  # what a step gives stays until its end
    for micro_step, batch in enumerate(batches):
        own = map(local, method.parameters())
        saved = _Saved([*own, *method.buffers(), *batch.views])
        hooks = torch.autograd.graph.saved_tensors_hooks(saved.note, lambda tensor: tensor)
        with hooks, precision.autocast():
            outputs.append(method(batch, micro_step))
        kept = max(kept, saved.bytes)
        with calls.backward():
            torch.autograd.backward(outputs[-1].loss / len(batches))
    method.after_backward(progress)
    with torch.no_grad():
        method.after_update(progress)
    return kept


class _Saved:
    """The bytes of the storages that tensors kept for backward lie in, each of them once."""

    def __init__(self, others: Iterable[Tensor]) -> None:
        self._known = {tensor.untyped_storage()._cdata for tensor in others}
        self.bytes = 0

    def note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self.bytes += storage.nbytes()
        return tensor


class _CallCounter:
    """How often each of some modules runs, by the phase of the step, and what backward computes."""

    def __init__(self, modules: Iterable[nn.Module], operations: Operations) -> None:
        self._modules, self._operations, self._in_backward = list(modules), operations, False
        self.found = {module: Calls() for module in self._modules}
        self.backward_flops = 0

    def __enter__(self) -> _CallCounter:
        self._hooks = [m.register_forward_pre_hook(self._called) for m in self._modules]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    @contextmanager
    def backward(self) -> Iterator[None]:
        """What runs in this context runs for the second time, and is no forward pass."""
        self._in_backward, before = True, self._operations.flops
        yield
        self._in_backward = False
        self.backward_flops += self._operations.flops - before

    def _called(self, module: nn.Module, inputs: Any) -> None:
        so_far = self.found[module]
        if self._in_backward:
            self.found[module] = replace(so_far, again=so_far.again + 1)
        elif torch.is_grad_enabled():
            first = not any(tensor.requires_grad for tensor in _tensors(inputs))
            forward = so_far.forward + 1
            self.found[module] = replace(so_far, forward=forward, first=so_far.first + first)
        else:
            alone = so_far.without_gradient + 1
            self.found[module] = replace(so_far, without_gradient=alone)


def size(tensor: Tensor) -> int:
    """Bytes of its numbers."""
    return tensor.numel() * tensor.element_size()


def _tensors(value: Any) -> Iterator[Tensor]:
    """Those in nested containers and batches."""
    if isinstance(value, Batch):
        value = [value.views, value.indices, value.labels]
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
