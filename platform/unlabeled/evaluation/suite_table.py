"""The table of a suite: ours beside what papers report."""

from __future__ import annotations

from collections.abc import Mapping

from unlabeled.config.suites import SuiteChoice, SuitePart
from unlabeled.evaluation.results import Result, format_table


def suite_table(suite: SuiteChoice, results: Mapping[str, Result], method: str | None) -> str:
    """Text: a row a benchmark, then the protocol and the source of every row.

    `results` by the name of the part; a part without `metric` shows the main one. `method` is what
    the weights were trained with, None if nobody knows: the difference is to the published number
    of that method, and left blank where there is none. Published columns say so in their head.
    """
    parts = {name: part for name, part in suite.parts.items() if part and name in results}
    systems = list(dict.fromkeys(system for part in parts.values() for system in part.published))
    rows = [_row(name, results[name], parts[name], systems, method) for name in parts]
    notes = [note for name, part in parts.items() for note in _notes(name, results[name], part)]
    return "\n".join([format_table(rows), "", *notes])


def _row(
    name: str, result: Result, part: SuitePart, systems: list[str], method: str | None
) -> dict[str, object]:
    metric = part.metric or next(iter(result.metrics))
    ours = result.metrics[metric]
    row: dict[str, object] = {
        "benchmark": name,
        "data set": result.dataset,
        "fingerprint": result.fingerprint[:12],
        "metric": metric,
        "ours": ours,
    }
    row.update({f"{system} (published)": part.published.get(system) for system in systems})
    if systems:
        known = part.published.get(method) if method else None
        row["difference"] = None if known is None else ours - known
    return row


def _notes(name: str, result: Result, part: SuitePart) -> list[str]:
    notes = [f"{name}: {result.protocol}"]
    if part.source:
        notes.append(f"{name}, published: {part.source}")
    return notes


def table_by_step(rows: Mapping[int, Mapping[str, Result]]) -> str:
    """Text: a row a checkpoint, by its step; a column a benchmark, with its main metric."""
    return format_table(
        [
            {"step": step, **{name: next(iter(r.metrics.values())) for name, r in row.items()}}
            for step, row in sorted(rows.items())
        ]
    )
