"""Hydra puts the YAML together; faults are collected, to be reported all at once."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unlabeled.config.location import config_dir


@dataclass
class Composed:
    """Plain data and the faults found while putting it together."""

    data: dict[str, Any]
    problems: list[str] = field(default_factory=list)


@dataclass
class Overrides:
    """Command-line overrides by what is to be done with them."""

    groups: list[str] = field(default_factory=list)
    """Choices, as Hydra is given them."""
    values: list[Override] = field(default_factory=list)
    nulls: list[str] = field(default_factory=list)
    """Groups that were set to null, which Hydra's grammar of choices lacks."""
    problems: list[str] = field(default_factory=list)

    @property
    def all(self) -> list[str]:
        """As Hydra is given them: choices first, then values."""
        return self.groups + [_for_hydra(value) for value in self.values]


def compose_config(name: str, overrides: Sequence[str]) -> Composed:
    """The config `name` with overrides, interpolations resolved.

    A value for a key that no YAML has is kept (the typed check then names it as unknown, whether it
    was written as `key=`, `+key=` or `++key=`); a choice that does not exist is reported and left
    out.
    """
    sorted_out = sort_overrides(overrides, [config_dir()])
    problems = sorted_out.problems
    try:
        data = _compose(name, sorted_out)
        data.update(dict.fromkeys(sorted_out.nulls))
    except (HydraException, OmegaConfBaseException) as error:
        problems.append(_one_line(error))
        data = {}
    return Composed(data, problems)


def _compose(name: str, overrides: Overrides) -> dict[str, Any]:
    own = [value for value in overrides.values if _sets_or_deletes(value)]
    rest = [_for_hydra(value) for value in overrides.values if not _sets_or_deletes(value)]
    config = pickle.loads(_chosen(str(config_dir()), name, (*overrides.groups, *rest)))
    HydraConfig.instance().set_config(config)  # what ${hydra:runtime.choices...} is resolved from
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    for value in own:
        _apply(value, config)
    data = OmegaConf.to_container(config, resolve=True)
    assert isinstance(data, dict)
    return {str(key): value for key, value in data.items()}


@lru_cache(maxsize=256)
def _chosen(folder: str, name: str, choices: tuple[str, ...]) -> bytes:
    """What Hydra makes of the choices, pickled: it takes a fifth of a second.

    Values come later, so that the rows of a study, which differ in them, wait for it once.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(folder, version_base="1.3", job_name="unlabeled"):
        return pickle.dumps(compose(name, list(choices), return_hydra_config=True))


def _sets_or_deletes(override: Override) -> bool:
    """Whether `_apply` can do it; Hydra does its own settings, and says what else is wrong."""
    other = override.is_sweep_override() or override.package is not None
    return not (other or override.is_hydra_override())


def _apply(override: Override, config: DictConfig) -> None:
    """As Hydra does with `++key=value` and `~key`."""
    key, value = override.key_or_group, override.value()
    if not override.is_delete():
        OmegaConf.update(config, key, value, force_add=True)
        return
    found = OmegaConf.select(config, key, throw_on_missing=False)
    if found is None:
        raise ConfigCompositionException(f"~{key}: there is none to delete")
    if value not in (None, found):
        raise ConfigCompositionException(f"~{key}={value}: not deleted, it is {found}")
    parent, _, last = key.rpartition(".")
    holder = OmegaConf.select(config, parent) if parent else config
    if not isinstance(holder, DictConfig):
        raise ConfigCompositionException(
            f"~{key}: {parent} is a list; give the list that it shall be"
        )
    del holder[last]


def _for_hydra(value: Override) -> str:
    assert value.input_line is not None
    return value.input_line if value.is_delete() else f"++{value.input_line.lstrip('+')}"


def sort_overrides(overrides: Sequence[str], folders: Sequence[Path]) -> Overrides:
    """Tell choices (`method=swav`) from values (`seed=1`), and check that the choices exist."""
    result = Overrides()
    for text in overrides:
        parsed = parse_override(text)
        if isinstance(parsed, str):
            result.problems.append(parsed)
            continue
        key, quoted = parsed.key_or_group, parsed.input_line or text
        options = group_options(key, folders)
        if key.startswith("hydra/"):  # its launchers and sweepers, which it knows itself
            result.groups.append(quoted)
        elif options is None:
            result.values.append(parsed)
        elif parsed.value() is None and not parsed.is_delete():
            result.nulls.append(key)
        elif parsed.is_sweep_override() or parsed.is_delete() or str(parsed.value()) in options:
            result.groups.append(quoted)
        else:
            result.problems.append(_unknown_choice(key, str(parsed.value()), options))
    return result


@lru_cache(maxsize=4096)
def parse_override(text: str) -> Override | str:
    """One override, or the message why it is none; values that Hydra's grammar lacks are quoted."""
    key, separator, value = text.partition("=")
    if not separator and not text.startswith("~"):
        return f"{text}: expected key=value"
    parser = OverridesParser.create()
    try:
        return parser.parse_override(text)
    except HydraException:
        pass
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    try:
        return parser.parse_override(f"{key}='{escaped}'")
    except HydraException as error:
        return f"{text}: not a key=value that can be read ({_one_line(error)})"


def group_options(group: str, folders: Sequence[Path]) -> list[str] | None:
    """The choices of a config group (nested ones as folder/name), or None if it is no group."""
    found = [folder / group for folder in folders if group and (folder / group).is_dir()]
    if not found:
        return None
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix()
        for folder in found
        for path in folder.rglob("*.yaml")
    )


def _unknown_choice(group: str, value: str, options: list[str]) -> str:
    close = difflib.get_close_matches(value, options, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{group}: unknown choice {value!r}.{hint} Known: {', '.join(options)}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
