"""Turn plain data into typed dataclasses, collecting every fault on the way."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from unlabeled.errors import ConfigError
from unlabeled.registry import Component, get

T = TypeVar("T")
_BAD = object()


def build_config(schema: type[T], data: Mapping[str, Any], problems: Iterable[str] = ()) -> T:
    """`data` as an instance of the dataclass `schema`.

    Every unknown key, wrong type, unknown component name and failed `problems()` check of a
    dataclass is reported in one ConfigError, one line each, after the `problems` already known.
    """
    checker = Checker(list(problems))
    config = checker.dataclass(schema, data, "")
    if checker.problems:
        raise ConfigError(checker.problems)
    return typing.cast(T, config)


class Checker:
    """Walks a schema and the data together; `problems` gathers the faults with their key paths."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems

    def fault(self, path: str, message: str) -> Any:
        """Record one fault; the value stands for 'no usable value'."""
        self.problems.append(f"{path}: {message}" if path else message)
        return _BAD

    def dataclass(self, schema: type, data: Any, path: str) -> Any:
        """Check a mapping against the fields of a dataclass."""
        if not isinstance(data, Mapping):
            return self.fault(path, f"expected a group of keys, got {data!r}")
        hints = typing.get_type_hints(schema, include_extras=True)
        fields = {f.name: f for f in dataclasses.fields(schema)}
        for key in data:
            if key not in fields:
                self.fault(_join(path, key), _unknown_key(str(key), list(fields)))
        values = {}
        for name, field in fields.items():
            if name in data:
                values[name] = self.value(hints[name], data[name], _join(path, name))
            elif _required(field):
                values[name] = self.fault(_join(path, name), f"required ({_spell(hints[name])})")
        if any(value is _BAD for value in values.values()):
            return _BAD
        config = schema(**values)
        for name, message in getattr(config, "problems", tuple)():
            self.fault(_join(path, name), message)
        return config

    def value(self, hint: Any, value: Any, path: str) -> Any:
        """Check one value against a type hint."""
        if value == "???":
            return self.fault(path, f"required: give it as {path}=... ({_spell(hint)})")
        origin = get_origin(hint)
        if origin is Annotated:
            return self.component(get_args(hint)[1], value, path)
        if origin in (Union, types.UnionType):
            return self.union(hint, value, path)
        if origin is Literal:
            if value in get_args(hint) and not isinstance(value, bool):
                return value
            return self.fault(
                path, f"got {value!r}, accepted: {_spell(hint)}{_close(value, get_args(hint))}"
            )
        if origin in (list, tuple):
            return self.sequence(hint, value, path)
        if origin is dict:
            return self.mapping(hint, value, path)
        if dataclasses.is_dataclass(hint):
            return self.dataclass(typing.cast(type, hint), value, path)
        return self.scalar(hint, value, path)

    def component(self, kind: str, value: Any, path: str) -> Any:
        """Check `{name: ..., field: ...}` against the registered component of that name."""
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            return self.fault(path, f"expected a {kind}: its `name` and its fields, got {value!r}")
        try:
            cls = get(kind, value["name"])
        except ConfigError as error:
            return self.fault(_join(path, "name"), str(error))
        fields = {key: item for key, item in value.items() if key != "name"}
        checked = self.dataclass(cls.Config, fields, path)
        return _BAD if checked is _BAD else Component(kind, value["name"], checked)

    def union(self, hint: Any, value: Any, path: str) -> Any:
        """The first alternative that fits; with one alternative beside None, its own message."""
        options = get_args(hint)
        if value is None:
            return (
                None
                if type(None) in options
                else self.fault(path, f"must not be null ({_spell(hint)})")
            )
        rest = [option for option in options if option is not type(None)]
        if len(rest) == 1:
            return self.value(rest[0], value, path)
        for option in sorted(rest, key=lambda o: type(value) is not o):
            trial = Checker([])
            checked = trial.value(option, value, path)
            if not trial.problems:
                return checked
        return self.fault(path, f"got {value!r}, expected {_spell(hint)}")

    def sequence(self, hint: Any, value: Any, path: str) -> Any:
        """A list, or a tuple of fixed length."""
        if not isinstance(value, list | tuple):
            return self.fault(path, f"expected {_spell(hint)}, got {value!r}")
        args = get_args(hint)
        if get_origin(hint) is tuple and not (len(args) == 2 and args[1] is Ellipsis):
            if len(value) != len(args):
                return self.fault(path, f"expected {len(args)} values, got {list(value)!r}")
            item_hints = args
        else:
            item_hints = (args[0],) * len(value)
        items = [
            self.value(h, v, f"{path}[{i}]")
            for i, (h, v) in enumerate(zip(item_hints, value, strict=True))
        ]
        return _BAD if any(item is _BAD for item in items) else get_origin(hint)(items)

    def mapping(self, hint: Any, value: Any, path: str) -> Any:
        """A mapping from free names to values of one type."""
        if not isinstance(value, Mapping):
            return self.fault(path, f"expected {_spell(hint)}, got {value!r}")
        item_hint = get_args(hint)[1]
        items = {key: self.value(item_hint, item, _join(path, key)) for key, item in value.items()}
        return _BAD if any(item is _BAD for item in items.values()) else items

    def scalar(self, hint: Any, value: Any, path: str) -> Any:
        """int, float, bool or str; an int is a fine float, nothing else is converted."""
        if hint is Any:
            return value
        if hint is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, hint) and not (hint is not bool and isinstance(value, bool)):
            return value
        return self.fault(path, f"expected {_spell(hint)}, got {value!r} ({type(value).__name__})")


def to_data(config: Any) -> Any:
    """The inverse of `build_config`: plain dicts, lists and scalars."""
    if isinstance(config, Component):
        return {"name": config.name, **to_data(config.fields)}
    if dataclasses.is_dataclass(config):
        return {f.name: to_data(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {key: to_data(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [to_data(value) for value in config]
    return config


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _unknown_key(key: str, known: list[str]) -> str:
    accepted = ", ".join(known) if known else "nothing: it has no fields"
    return f"unknown key.{_close(key, known)} Accepted: {accepted}"


def _close(value: Any, known: Iterable[Any]) -> str:
    close = difflib.get_close_matches(str(value), [str(k) for k in known], n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def _spell(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return f"a {args[1]}"
    if origin in (Union, types.UnionType):
        return " or ".join(_spell(a) for a in args)
    if origin is Literal:
        return ", ".join(str(a) for a in args)
    if origin in (list, tuple, dict):
        inner = ", ".join("..." if a is Ellipsis else _spell(a) for a in args)
        return f"{origin.__name__}[{inner}]"
    if hint is type(None):
        return "null"
    return getattr(hint, "__name__", str(hint))
