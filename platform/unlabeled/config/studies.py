"""The typed truth behind configs/study: a table of a paper, as runs that differ in a few keys."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path

from unlabeled.config.check import build_config
from unlabeled.config.location import config_dir
from unlabeled.config.schema import Problems
from unlabeled.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """One run of a study."""

    overrides: list[str] = field(default_factory=list)
    """What sets this run apart, as on the command line of `unlabeled pretrain`."""
    scales: dict[str, list[str]] = field(default_factory=dict)
    """The same for one scale alone, by its name: what means the same on less data."""
    published: dict[str, float | str] = field(default_factory=dict)
    """What the paper reports for this row, by the name of our result; a word where it failed."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A table: runs, what is measured of each, and what a paper found."""

    name: str
    title: str
    source: str
    """Paper and table, and what was trained there."""
    suite: str = "quick"
    """The suite that measures every run."""
    scales: dict[str, list[str]]
    """What all runs share, by the name of the scale."""
    rows: dict[str, StudyRow]
    beside: dict[str, str] = field(default_factory=dict)
    """Which of our results has the order that a published one has, where the two are not the same
    measure: published name -> our name."""

    def problems(self) -> Problems:
        """Scales of rows are scales of the study."""
        if not self.scales:
            yield "scales", "a study needs at least one scale"
        if not self.rows:
            yield "rows", "a study needs at least one row"
        for label, row in self.rows.items():
            for name in row.scales:
                if name not in self.scales:
                    yield f"rows.{label}.scales.{name}", "no scale of this study"

    def overrides(self, label: str, scale: str) -> list[str]:
        """Of one run: what all share, then what sets it apart. ConfigError for another scale."""
        if scale not in self.scales:
            raise ConfigError(
                f"scale: {self.name} has no {scale!r}; known: {', '.join(self.scales)}"
            )
        row = self.rows[label]
        return [*self.scales[scale], *row.overrides, *row.scales.get(scale, [])]


def studies() -> list[str]:
    """The names of those that come with the package."""
    return sorted(path.stem for path in (config_dir() / "study").glob("*.yaml"))


def load_study(name: str) -> Study:
    """One that comes with the package, by its name, or a YAML file of the same form."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in studies():
            close = difflib.get_close_matches(name, studies(), n=1, cutoff=0.5)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"unknown study {name!r}.{hint} Known: {', '.join(studies())}")
        path = config_dir() / "study" / f"{name}.yaml"
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    return build_config(Study, data if isinstance(data, dict) else {})
