"""How the parameters of a method lie on the ranks: whole on each of them, or in shards."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unlabeled.config.schema import PretrainConfig
from unlabeled.distributed import comm
from unlabeled.distributed.parallel import DataParallel, Parallel
from unlabeled.engine.activation_checkpointing import checkpoint_activations
from unlabeled.engine.precision import TYPES
from unlabeled.errors import ConfigError, EnvironmentProblem
from unlabeled.methods.base import Method
from unlabeled.methods.teacher import Teacher
from unlabeled.models.stages import stages

log = logging.getLogger(__name__)


def build_parallel(
    config: PretrainConfig, build_method: Callable[[], Method], device: torch.device
) -> tuple[Method, Parallel]:
    """The method on the device, as `config.sharding` wants it; all ranks together.

    One process has nothing to divide: it holds the whole model whatever the config says. Shards lie
    in memory row after row whatever `channels_last` says of images and activations.
    """
    if config.sharding == "fsdp" and comm.world_size() > 1:
        return _sharded(config, build_method, device)
    method = build_method().to(device)
    if config.channels_last:
        method.to(memory_format=torch.channels_last)
    if config.compile:
        for network in networks(method):
            network.backbone.compile()
    if config.activation_checkpointing == "stage":
        checkpoint_activations(stages(method.backbone))
    return method, DataParallel(method, device)


def _sharded(
    config: PretrainConfig, build_method: Callable[[], Method], device: torch.device
) -> tuple[Method, Parallel]:
    _check_torch()
    from unlabeled.distributed.sharding import ShardedParallel, from_rows, gathered

    method, rows = _in_pieces(build_method)
    check_division(config, method)
    method.divide()
    if config.activation_checkpointing == "stage":
        checkpoint_activations(stages(method.backbone))
    kept = whole_parameters(method)
    for name in [name for name in rows if method.get_parameter(name) in kept]:
        full = gathered(rows.pop(name), method.get_parameter(name).shape)
        method.load_state_dict({name: full}, strict=False, assign=True)
    parallel = ShardedParallel(
        method,
        units=units(method),
        whole=whole_parameters(method),
        divided=divided_parameters(method),
        device=device,
        dtype=TYPES[config.precision],
    )
    shards = dict(method.named_parameters())
    filled = {name: from_rows(own.to(device), shards[name]) for name, own in rows.items()}
    method.load_state_dict(filled, strict=False, assign=True)
    method.to(device)
    parallel.start()
    return method, parallel


def _check_torch() -> None:
    """Say at the start, and not at the first checkpoint, that this torch is too old."""
    try:
        importlib.import_module("unlabeled.distributed.shard_files")
    except ImportError as error:
        raise EnvironmentProblem(
            f"sharding: torch {torch.__version__} lacks what fsdp needs ({error}); install a newer "
            "torch, or set sharding=none"
        ) from error


def _in_pieces(build_method: Callable[[], Method]) -> tuple[Method, dict[str, Tensor]]:
    """The method with large parameters on the meta device, and this rank's rows of each, by name.

    Where its parts cannot be built so, each rank holds all of them until they are divided.
    """
    from unlabeled.distributed.pieces import NotInPieces, building_pieces

    try:
        with building_pieces() as pieces:
            method = build_method()
        return method, pieces.release(method)
    except NotInPieces as reason:
        log.warning("sharding: every rank builds the whole model first (%s)", reason)
    return build_method(), {}


def _below(method: Method) -> set[nn.Parameter]:
    """Parameters of the modules that the method wants whole."""
    return {p for name in method.whole for p in method.get_submodule(name).parameters()}


def whole_parameters(method: Method) -> set[nn.Parameter]:
    """What stays on every rank: those, biases, normalisation layers, and what is in no part."""
    in_parts = {p for part in _parts(method) for p in part.parameters()}
    others = {p for p in method.parameters() if p.ndim < 2 or p not in in_parts}
    return _below(method) | others


def divided_parameters(method: Method) -> set[nn.Parameter]:
    """What the method computes with row by row: matrices of the modules that it wants divided."""
    modules = [method.get_submodule(name) for name in method.divided]
    return {p for module in modules for p in module.parameters() if p.ndim > 1}


def check_division(config: PretrainConfig, method: Method) -> None:
    """ConfigError where ranks that have other images each would normalise them on their own."""
    layers = [m for m in method.modules() if isinstance(m, _BatchNorm)]
    synchronised = config.sync_batch_norm
    everywhere = synchronised.enabled and synchronised.group_size in (None, comm.world_size())
    if method.divided and layers and not everywhere:
        raise ConfigError(
            f"sync_batch_norm: with sharding=fsdp a rank sees the images of its own part of "
            f"{', '.join(method.divided)} alone, and batch normalisation over fewer than all "
            f"{comm.world_size()} ranks would tell the parts apart; set "
            "sync_batch_norm.enabled=true and sync_batch_norm.group_size=null, or sharding=none"
        )


def units(method: Method) -> list[nn.Module]:
    """What is gathered at once: the parts that have something to gather."""
    left = whole_parameters(method) | divided_parameters(method)
    return [part for part in _parts(method) if set(part.parameters()) - left]


def _parts(method: Method) -> list[nn.Module]:
    """The stages of a backbone, its other layers, the parts of heads and of other modules.

    Parts whose results are tensors: FSDP finds no way back through the output of a head or method.
    """
    both = networks(method)
    parts: list[nn.Module] = []
    for network in both:
        parts += [*stages(network.backbone), network.backbone, *network.head.children()]
    known = [method.backbone, method.head, *both]
    for other in method.children():
        if not any(other is module for module in known):
            parts += [*other.children()] or [other]
    return parts


def networks(method: Method) -> list[Method | Teacher]:
    """What has a backbone and a head: the method and its teachers."""
    return [method, *(child for child in method.children() if isinstance(child, Teacher))]
