"""The contract of every registered component: one word names file, registration, YAML and test."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from unlabeled.catalog import Entry
from unlabeled.config.check import to_data
from unlabeled.config.location import config_dir
from unlabeled.registry import KINDS, entries, get, group

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "platform" / "unlabeled"
COMPONENTS = [entry for kind in KINDS for entry in entries(kind)]
FILES = {kind: sorted((config_dir() / group(kind)).rglob("*.yaml")) for kind in KINDS}


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    """Hydra reading configs/, and forgotten afterwards."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        yield


def composed(kind: str, name: str) -> dict[str, Any]:
    """What a YAML file gives its own kind; interpolations stay as they are written.

    A file may bring other parts (a method its head and loss), which are checked as their own kind.
    """
    return deepcopy(_composed(kind, name))


@cache
def _composed(kind: str, name: str) -> dict[str, Any]:
    alone = OmegaConf.load(config_dir() / group(kind) / f"{name}.yaml")
    if "defaults" not in alone:  # it brings nothing; Hydra takes a tenth of a second to say so
        content = OmegaConf.to_container(alone, resolve=False)
        assert isinstance(content, dict)
        return content
    # What a method may put another in the place of: DeepCluster brings a constant learning rate.
    around = ["+scheduler=cosine"] if kind == "method" else []
    chosen = compose(None, [*around, f"+{group(kind)}={name}"])
    config = OmegaConf.to_container(chosen, resolve=False)
    assert isinstance(config, dict)
    part = config[group(kind)]
    assert isinstance(part, dict)
    return part


def interpolated(value: Any) -> bool:
    if isinstance(value, list):
        return any(interpolated(item) for item in value)
    return isinstance(value, str) and "${" in value


def differences(written: Any, default: Any, path: str) -> Iterator[str]:
    """Where a YAML value is not the dataclass's default, leaving out interpolations."""
    if interpolated(written):
        return
    if isinstance(written, dict) and isinstance(default, dict):
        for key in sorted(set(written) | set(default)):
            yield from differences(written.get(key), default.get(key), f"{path}.{key}")
    elif written != default or isinstance(written, bool) != isinstance(default, bool):
        yield f"{path}: the YAML says {written!r}, the dataclass {default!r}"


def yaml_problems(entry: Entry) -> Iterator[str]:
    """The YAML has `name` and exactly the fields, with the defaults of the dataclass."""
    path = config_dir() / group(entry.kind) / f"{entry.name}.yaml"
    if not path.is_file():
        yield f"configs/{group(entry.kind)}/{entry.name}.yaml is missing"
        return
    written = composed(entry.kind, entry.name)
    fields = {field.name: field for field in dataclasses.fields(get(entry.kind, entry.name).Config)}
    if written.pop("name", None) != entry.name:
        yield f"{path.name} must say `name: {entry.name}`"
    if set(written) != set(fields):
        missing, extra = sorted(set(fields) - set(written)), sorted(set(written) - set(fields))
        yield f"{path.name}: missing {missing}, not a field {extra}"
    for name in sorted(set(written) & set(fields)):
        field = fields[name]
        if field.default is not dataclasses.MISSING:
            yield from differences(written[name], to_data(field.default), name)
        elif field.default_factory is not dataclasses.MISSING:
            yield from differences(written[name], to_data(field.default_factory()), name)


def plain(hint: Any) -> bool:
    """Whether a config field's type is one that YAML and the checker can express."""
    origin, args = get_origin(hint), get_args(hint)
    if hint in (int, float, bool, str, type(None)) or origin is Literal:
        return True
    if origin is Annotated:
        return args[1] in KINDS
    if origin in (list, tuple, Union, types.UnionType):
        return all(plain(arg) for arg in args if arg is not Ellipsis)
    if origin is dict:
        return args[0] is str and plain(args[1])
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint, include_extras=True)
        return all(plain(each) for each in hints.values())
    return False


def config_problems(entry: Entry) -> Iterator[str]:
    """Config is a frozen dataclass of plain types, and each field says what it is."""
    config = getattr(get(entry.kind, entry.name), "Config", None)
    if not dataclasses.is_dataclass(config) or not isinstance(config, type):
        yield "has no dataclass `Config`"
        return
    if not config.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        yield "Config must be frozen"
    for name, hint in typing.get_type_hints(config, include_extras=True).items():
        if not plain(hint):
            yield f"Config.{name}: {hint} is not a type of the configuration"
    documented = {field.name: field.doc for field in entry.fields}
    for field in dataclasses.fields(config):
        if not documented.get(field.name):
            yield f"Config.{field.name} has no doc line below it"


def naming_problems(entry: Entry) -> Iterator[str]:
    """One word for the file, the registration and the test."""
    path = Path(entry.path)
    if path.stem != entry.name:
        yield f"is registered in {path.name}, expected {entry.name}.py"
    test = ROOT / "tests" / path.relative_to(PACKAGE).parent / f"test_{entry.name}.py"
    if not test.is_file():
        yield f"{test.relative_to(ROOT)} is missing"
    if len(re.findall(r"[.!?:](?=\s|$)", entry.doc)) < 2:
        yield f"the docstring needs more than one sentence, got {entry.doc!r}"


@pytest.mark.parametrize("entry", COMPONENTS, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_component_keeps_its_contract(entry: Entry) -> None:
    problems = [*naming_problems(entry), *config_problems(entry), *yaml_problems(entry)]
    assert not problems, "\n".join([f"{entry.kind} {entry.name}:", *problems])


@pytest.mark.parametrize("kind", KINDS)
def test_every_yaml_of_a_kind_names_a_component(kind: str) -> None:
    """Also those that are not called like their component: the same component, other values."""
    problems = []
    known = {entry.name: entry for entry in entries(kind)}
    for path in FILES[kind]:
        name = path.relative_to(config_dir() / group(kind)).with_suffix("").as_posix()
        written = composed(kind, name)
        if written.get("name") not in known:
            problems.append(f"{name}: name {written.get('name')!r} is no registered {kind}")
            continue
        fields = {field.name for field in known[written["name"]].fields} | {"name"}
        if set(written) != fields:
            problems.append(f"{name}: has {sorted(written)}, fields are {sorted(fields)}")
    assert not problems, "\n" + "\n".join(problems)


def test_no_kind_is_empty() -> None:
    """The tests above run over what they find; this one notices when they find nothing."""
    assert {entry.kind for entry in COMPONENTS} == set(KINDS)
