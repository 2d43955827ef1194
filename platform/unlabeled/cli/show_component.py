"""`unlabeled show KIND NAME`: all that is known of one name, without importing it."""

from __future__ import annotations

import argparse
import ast
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from omegaconf import OmegaConf

from unlabeled.catalog import Entry, Field
from unlabeled.cli.choices import Choice, choice, kinds
from unlabeled.config.location import config_dir
from unlabeled.registry import KINDS, group, load_plugins

WIDTH = 100
NEEDED = {"pretrain": [], "evaluate": ["benchmark", "weights"], "suite": ["suite", "weights"]}
"""The commands that take components, and what each must be told."""


def main(argv: Sequence[str]) -> int:
    """Print the page of one component, or of one experiment or scale."""
    parser = argparse.ArgumentParser(
        prog="unlabeled show",
        description="What a component is, its fields and defaults, and how to use it.",
        epilog="Kinds: " + ", ".join(kinds()),
    )
    parser.add_argument("kind", help="for example: loss")
    parser.add_argument("name", help="for example: swav; `unlabeled list KIND` gives them all")
    arguments = parser.parse_args(argv)
    load_plugins([])
    chosen = choice(arguments.kind, arguments.name)
    print("\n".join(_component_page(chosen) if chosen.entry else _yaml_page(chosen)))
    return 0


def _component_page(chosen: Choice) -> Iterator[str]:
    entry = chosen.entry
    assert entry is not None
    yield f"{entry.kind} {entry.name}"
    yield ""
    yield textwrap.indent(entry.doc or "(no description)", "  ")
    yield ""
    yield "fields" if entry.fields else "fields: none"
    for field in entry.fields:
        yield from _field(field)
    yield ""
    yield f"contract  {KINDS[entry.kind].contract}"
    yield f"source    {_near(Path(entry.path))}:{entry.line}"
    yield f"yaml      {_near(chosen.yaml) if chosen.yaml else 'none: write the fields yourself'}"
    yield "use"
    yield from (f"  {line}" for line in usages(entry))


def _yaml_page(chosen: Choice) -> Iterator[str]:
    assert chosen.yaml is not None
    yield f"{chosen.kind} {chosen.name}"
    yield ""
    yield textwrap.indent(chosen.yaml.read_text(encoding="utf-8").rstrip(), "  ")
    yield ""
    yield f"yaml      {_near(chosen.yaml)}"
    yield "use"
    if chosen.kind == "study":  # its command takes a name, and composes no group
        yield f"  unlabeled study {chosen.name}"
        return
    for command, key in _keys(chosen.kind) or [(_command(chosen.kind), chosen.kind)]:
        yield f"  {_line(command, _choose(command, chosen.kind, key, chosen.name), key)}"


def _field(field: Field) -> Iterator[str]:
    value = "required" if field.default is None else f"= {field.default}"
    yield f"  {field.name}: {field.type} {value}"
    yield from textwrap.wrap(field.doc, WIDTH, initial_indent="      ", subsequent_indent="      ")


def usages(entry: Entry) -> Iterator[str]:
    """Command lines that choose the component and set one of its fields."""
    scalars = ((field.name, _scalar(field.default)) for field in entry.fields)
    example = next((f".{name}={value}" for name, value in scalars if value is not None), "")
    for command, key in _keys(entry.kind):
        value = key.replace("NAME", entry.name) + example if example else ""
        chosen = _choose(command, entry.kind, key, entry.name)
        if chosen.startswith("~"):
            yield f"{_line(command, chosen, key)}  # leaves it out; it is there by default"
            chosen = ""
        if chosen or value:
            yield _line(command, f"{chosen} {value}".strip(), key)


def _line(command: str, arguments: str, key: str) -> str:
    """A whole command line, with what the command always needs."""
    needed = NEEDED[command]
    return " ".join(["unlabeled", command, *(f"{n}=..." for n in needed if n != key), arguments])


def _choose(command: str, kind: str, key: str, name: str) -> str:
    """Hydra's grammar: group=name, group@place=name, + for what no default names, ~ to drop it."""
    folder, place = group(kind) if kind in KINDS else kind, key.replace("NAME", name)
    target = folder if place == folder else f"{folder}@{place}"
    if place == key:
        return f"{target}={name}"
    return f"~{target}" if target in _defaults(command) else f"+{target}={name}"


def _command(kind: str) -> str:
    """The command whose YAML names this group, which no schema names."""
    return next(name for name in NEEDED if _defaults(name) & {kind, f"optional {kind}"})


@cache
def _defaults(command: str) -> frozenset[str]:
    """The groups that the defaults list of a command's YAML names, and those it builds upon."""
    named: set[str] = set()
    for item in OmegaConf.load(config_dir() / f"{command}.yaml").defaults:
        if isinstance(item, Mapping):
            named.update(map(str, item))
        elif item != "_self_":
            named |= _defaults(item)
    return frozenset(named)


def _scalar(default: str | None) -> str | None:
    """A Python default as Hydra reads it; None if it is no plain number, word or switch."""
    try:
        value = ast.literal_eval(default or "")
    except (SyntaxError, ValueError):
        return None
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    return str(value) if isinstance(value, int | float | str) and str(value) else None


def _keys(kind: str) -> list[tuple[str, str]]:
    """(command, key) wherever the two commands take a component of this kind; NAME is yours."""
    from unlabeled.config.schema import EvaluateConfig, PretrainConfig

    found = []
    for command, schema in (("pretrain", PretrainConfig), ("evaluate", EvaluateConfig)):
        for key, hint in typing.get_type_hints(schema, include_extras=True).items():
            if _takes(hint, kind):
                named = typing.get_origin(hint) is dict
                found.append((command, f"{key}.NAME" if named else key))
    return found


def _takes(hint: Any, kind: str) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return bool(arguments[1] == kind)
    if origin in (typing.Union, types.UnionType, dict, list):
        return any(_takes(argument, kind) for argument in arguments)
    return False


def _near(path: Path) -> str:
    """Relative to the working directory if it is below it, as editors and people prefer."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
