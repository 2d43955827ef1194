"""Hydra puts the YAML together; faults are collected, to be reported all at once."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from unlabeled.config.location import config_dir


@dataclass
class Composed:
    """Plain data and the faults found while putting it together."""

    data: dict[str, Any]
    problems: list[str] = field(default_factory=list)


@dataclass
class Overrides:
    """Command-line overrides in the form that Hydra is given them."""

    groups: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    nulls: list[str] = field(default_factory=list)
    """Groups that were set to null, which Hydra's grammar of choices lacks."""
    problems: list[str] = field(default_factory=list)

    @property
    def all(self) -> list[str]:
        """Choices first, then values."""
        return self.groups + self.values


def compose_config(name: str, overrides: Sequence[str]) -> Composed:
    """The config `name` with overrides, interpolations resolved.

    A value for a key that no YAML has is kept (the typed check then names it as unknown, whether it
    was written as `key=`, `+key=` or `++key=`); a choice that does not exist is reported and left
    out.
    """
    sorted_out = sort_overrides(overrides, [config_dir()])
    problems = sorted_out.problems
    try:
        data = _compose(name, sorted_out.all)
        data.update(dict.fromkeys(sorted_out.nulls))
    except (HydraException, OmegaConfBaseException) as error:
        problems.append(_one_line(error))
        data = {}
    return Composed(data, problems)


def _compose(name: str, overrides: list[str]) -> dict[str, Any]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3", job_name="unlabeled"):
        config = compose(name, overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(config)  # what ${hydra:runtime.choices...} is resolved from
    with open_dict(config):
        del config["hydra"]
    data = OmegaConf.to_container(config, resolve=True)
    assert isinstance(data, dict)
    return {str(key): value for key, value in data.items()}


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
            plain = quoted.lstrip("+")
            result.values.append(quoted if parsed.is_delete() else f"++{plain}")
        elif parsed.value() is None and not parsed.is_delete():
            result.nulls.append(key)
        elif parsed.is_sweep_override() or parsed.is_delete() or str(parsed.value()) in options:
            result.groups.append(quoted)
        else:
            result.problems.append(_unknown_choice(key, str(parsed.value()), options))
    return result


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
