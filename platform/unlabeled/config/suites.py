"""The typed truth behind the YAML of suites: every key of `unlabeled suite`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from unlabeled.config.ranges import positive
from unlabeled.config.schema import MeasuringConfig, Problems
from unlabeled.registry import Component


@dataclass(frozen=True, kw_only=True)
class SuitePart:
    """One benchmark of a suite."""

    benchmark: Annotated[Component, "benchmark"]
    dataset: Annotated[Component, "dataset"] | None = None
    """null: that of the suite."""
    metric: str | None = None
    """The metric that the table shows; null: the benchmark's main one."""
    published: dict[str, float] = field(default_factory=dict)
    """What papers report for that metric, by method; shown beside ours, never mixed with it."""
    source: str | None = None
    """Where the published numbers stand."""

    def problems(self) -> Problems:
        """No number without its source."""
        if self.published and self.source is None:
            yield "source", "published numbers need the paper and table that they come from"


@dataclass(frozen=True, kw_only=True)
class SuiteChoice:
    """The benchmarks of a suite."""

    name: str
    parts: dict[str, SuitePart | None]
    """By the name of their result file; null leaves one out."""

    def problems(self) -> Problems:
        """Names that are files."""
        if not any(self.parts.values()):
            yield "parts", "a suite needs at least one benchmark"
        for name in self.parts:
            if not name.replace("-", "_").isidentifier():
                yield f"parts.{name}", "names a file: use letters, digits, - and _"


@dataclass(frozen=True, kw_only=True)
class SuiteConfig(MeasuringConfig):
    """Everything that `unlabeled suite` reads."""

    suite: SuiteChoice
    out: str | None
    """The folder of the results; null: results/ of the run, or results/<weights> here."""
    watch: bool
    """Measure every checkpoint of a run that still trains, into results/<step>/, until it ends."""
    watch_seconds: float
    """How long to wait before looking for another checkpoint."""

    def problems(self) -> Problems:
        """Ranges."""
        yield from super().problems()
        yield from positive(self, "watch_seconds")
