"""What can be named on the command line.

Components of every kind, and the groups of YAML files that are choices without being components:
experiments, scales.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unlabeled.catalog import Entry
from unlabeled.config.location import config_dir
from unlabeled.errors import ConfigError
from unlabeled.registry import KINDS, entries, group


@dataclass(frozen=True)
class Choice:
    """One name of a kind; `entry` is the component it stands for, None for a YAML alone."""

    kind: str
    name: str
    summary: str
    yaml: Path | None
    entry: Entry | None = None


def kinds() -> list[str]:
    """The kinds of components in their order, then the other folders of configs/."""
    folders = {path.name for path in config_dir().iterdir() if path.is_dir()}
    return [*KINDS, *sorted(folders - {group(kind) for kind in KINDS})]


def choices(kind: str) -> list[Choice]:
    """Everything that can be named of a kind, sorted.

    A YAML file beside those of the components (`configs/dataset/my_photos.yaml`) is a choice too: a
    component under another name, with other values.
    """
    if kind not in kinds():
        raise ConfigError(unknown("kind", kind, kinds()))
    folder = config_dir() / (group(kind) if kind in KINDS else kind)
    files = {
        path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.yaml")
    }
    known = {entry.name: entry for entry in entries(kind)} if kind in KINDS else {}
    components = [Choice(kind, name, e.summary, files.get(name), e) for name, e in known.items()]
    others = [
        Choice(kind, name, _summary(files[name]), files[name]) for name in files.keys() - known
    ]
    return sorted(components + others, key=lambda choice: choice.name)


def choice(kind: str, name: str) -> Choice:
    """The choice of that name; ConfigError with the closest one if there is none."""
    known = {each.name: each for each in choices(kind)}
    if name not in known:
        raise ConfigError(unknown(kind, name, known))
    return known[name]


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that does not exist."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown {what} {name!r}.{hint} Known: {', '.join(known) or 'none'}"


def _summary(path: Path) -> str:
    """The comment that opens the file (Hydra's own `# @package` aside), or else its values."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for line in lines:
        if not line.startswith("#"):
            break
        if not line.startswith("# @package") and line.strip("# "):
            return line.strip("# ")
    values = (line.split(" #")[0].strip() for line in lines if not line.startswith("#"))
    return ", ".join(value for value in values if value)
