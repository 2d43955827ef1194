"""The table of every component that a config can name, one fvcore registry per kind.

A component is a class with a nested dataclass `Config` (its fields, all of them in YAML) whose
constructor is `__init__(self, config, **context)`; the context of each kind is listed in `KINDS`.
Modules are imported only when a name is asked for, so that listing names costs no torch import.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import types
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, TypeVar

from fvcore.common.registry import Registry

from unlabeled.catalog import Entry, described, registrations
from unlabeled.errors import ConfigError

T = TypeVar("T", bound=type)


@dataclass(frozen=True)
class Kind:
    """A kind of component: the package that holds it and the contract of what is registered.

    `group` is its folder below configs/ where that is not called like the kind.
    """

    package: str
    contract: str
    group: str = ""


KINDS: dict[str, Kind] = {
    "method": Kind("unlabeled.methods", "unlabeled.methods.base.Method"),
    "backbone": Kind("unlabeled.models.backbones", "images [B, 3, h, w] -> [B, feature_dim]"),
    "head": Kind("unlabeled.models.heads", "[N, feature_dim] -> models.heads.base.HeadOutput"),
    "loss": Kind("unlabeled.losses", "tensors -> scalar in float32"),
    "assigner": Kind("unlabeled.assigners", "scores or features -> codes"),
    "transform": Kind("unlabeled.data.transforms", "data.transforms.base.Pipeline or Operation"),
    "meter": Kind("unlabeled.meters", "unlabeled.meters.base.Meter"),
    "hook": Kind("unlabeled.hooks", "unlabeled.hooks.base.Hook"),
    "dataset": Kind("unlabeled.data.sources", "unlabeled.data.sources.base.Source"),
    "sampler": Kind("unlabeled.data.sampling", "unlabeled.data.sampling.base.Sampler"),
    "optimizer": Kind("unlabeled.optim.optimizers", "named parameters -> torch.optim.Optimizer"),
    "scheduler": Kind("unlabeled.optim.schedulers", "step -> learning rate"),
    "benchmark": Kind("unlabeled.evaluation.benchmarks", "evaluation.benchmarks.base.Benchmark"),
    "launcher": Kind("unlabeled.launch", "unlabeled.launch.base.Launcher", group="launch"),
}

_REGISTRIES = {kind: Registry(kind) for kind in KINDS}


@dataclass(frozen=True)
class Component:
    """A component as named in a config: its kind, its name and its typed fields."""

    kind: str
    name: str
    fields: Any

    def build(self, **context: Any) -> Any:
        """Construct it; `context` is what its kind receives beside its own fields."""
        return get(self.kind, self.name)(self.fields, **context)


def register(kind: str, name: str) -> Callable[[T], T]:
    """Class decorator that makes a component known under `name`; a duplicate is an error."""

    def decorate(cls: T) -> T:
        registry = _REGISTRIES[kind]
        if name in registry and not _same_source(registry.get(name), cls):
            other = registry.get(name)
            raise ConfigError(
                f"{kind} {name!r} is registered twice: by {other.__module__} and by "
                f"{cls.__module__}; rename one of them"
            )
        if name not in registry:
            registry._do_register(name, cls)
        return cls

    return decorate


def _same_source(one: type, other: type) -> bool:
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def get(kind: str, name: str) -> Any:
    """The class registered under `name`.

    ConfigError names the closest known name for an unknown one, or the module that fails to import.
    """
    registry = _REGISTRIES[kind]
    if name not in registry and name.isidentifier() and _module_exists(kind, name):
        module = f"{KINDS[kind].package}.{name}"
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(f"{kind} {name!r}: cannot import {module}: {error}") from error
    if name not in registry:
        raise ConfigError(unknown_name(kind, name))
    return registry.get(name)


def _module_exists(kind: str, name: str) -> bool:
    return importlib.util.find_spec(f"{KINDS[kind].package}.{name}") is not None


def group(kind: str) -> str:
    """The folder below configs/, and so the Hydra group, of a kind."""
    return KINDS[kind].group or kind


def entries(kind: str) -> list[Entry]:
    """Every component of a kind, sorted: those of its package and those that plugins registered."""
    folder = importlib.import_module(KINDS[kind].package).__path__[0]
    found = {
        entry.name: entry
        for module in pkgutil.iter_modules([folder])
        for entry in registrations(f"{folder}/{module.name}.py")
        if entry.kind == kind
    }
    for name, cls in _REGISTRIES[kind]:
        if name not in found:
            found[name] = described(kind, name, cls)
    return [found[name] for name in sorted(found)]


def names(kind: str) -> list[str]:
    """All names of a kind: the modules of its package that register one, and those of plugins."""
    return [entry.name for entry in entries(kind)]


def unknown_name(kind: str, name: str) -> str:
    """The message for a name that nobody registered."""
    known = names(kind)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown {kind} {name!r}.{hint} Known: {', '.join(known)} (in {KINDS[kind].package})"


def load_plugins(modules: list[str]) -> list[types.ModuleType]:
    """Import third-party modules that register components: entry points and the config's `plugins`.

    Every module that cannot be imported is named in one ConfigError.
    """
    installed = entry_points(group="unlabeled.plugins")
    wanted = [(f"entry point {e.name} = {e.value}", e.module) for e in installed]
    wanted += [(f"plugins: {module}", module) for module in modules]
    loaded, problems = [], []
    for source, module in wanted:
        try:
            loaded.append(importlib.import_module(module))
        except ImportError as error:
            problems.append(f"{source}: cannot import {module!r}: {error}")
    if problems:
        raise ConfigError(problems)
    return loaded
