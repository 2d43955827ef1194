"""The table of a study: ours beside the paper's, and whether the order is the same."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations

from unlabeled.config.studies import Study
from unlabeled.evaluation.results import format_table

Found = Mapping[str, Sequence[Mapping[str, float]] | str]
"""By label of the row: the results of each seed, or in a word why there are none."""


def study_table(study: Study, scale: str, found: Found) -> str:
    """Text: a row a run; of several seeds the mean and the sample standard deviation.

    Columns of the paper say `(published)` and are never mixed with ours. Below, for each result
    that the paper reports too: how many pairs of rows stand in the paper's order.
    """
    columns = list(
        dict.fromkeys(
            name for one in found.values() if not isinstance(one, str) for r in one for name in r
        )
    )
    published = list(dict.fromkeys(name for row in study.rows.values() for name in row.published))
    rows = [_row(study, label, found[label], columns, published) for label in study.rows]
    lines = [f"{study.title} (scale {scale})", "", format_table(rows), ""]
    lines += [
        _order(study, found, name, study.beside.get(name, name))
        for name in published
        if study.beside.get(name, name) in columns
    ]
    return "\n".join([*lines, f"published: {study.source}"])


def _row(
    study: Study,
    label: str,
    outcome: Sequence[Mapping[str, float]] | str,
    columns: list[str],
    published: list[str],
) -> dict[str, object]:
    row: dict[str, object] = {"run": label}
    for column in columns:
        row[column] = outcome if isinstance(outcome, str) else _spelled(outcome, column)
    if not columns:
        row["result"] = outcome
    for name in published:
        row[f"{name} (published)"] = study.rows[label].published.get(name)
    return row


def _spelled(seeds: Sequence[Mapping[str, float]], column: str) -> str | None:
    values = [result[column] for result in seeds if column in result]
    if not values:
        return None
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} +- {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def _order(study: Study, found: Found, name: str, own: str) -> str:
    """Pairs of rows that the paper tells apart, and how many of them we find the same way round."""
    same = total = 0
    for one, other in combinations(study.rows, 2):
        theirs = [_worth(study.rows[label].published.get(name)) for label in (one, other)]
        ours = [_mean(found[label], own) for label in (one, other)]
        if None in theirs or None in ours or theirs[0] == theirs[1]:
            continue
        total += 1
        same += (ours[0] > ours[1]) == (theirs[0] > theirs[1])  # type: ignore[operator]
    return f"{own}: {same} of {total} pairs of rows stand in the paper's order"


def _worth(published: float | str | None) -> float | None:
    """A run that the paper calls failed is worse than any number."""
    return float("-inf") if isinstance(published, str) else published


def _mean(outcome: Sequence[Mapping[str, float]] | str, name: str) -> float | None:
    if isinstance(outcome, str):
        return float("-inf") if outcome == DIVERGED else None
    values = [result[name] for result in outcome if name in result]
    return statistics.mean(values) if values else None


DIVERGED = "diverged"
