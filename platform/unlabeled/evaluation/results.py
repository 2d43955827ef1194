"""The result files of a run directory, and the table that the terminal shows of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from unlabeled.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Result:
    """One evaluation; the fields are the keys of `results/<benchmark>.json`."""

    benchmark: str
    protocol: str
    metrics: dict[str, float]
    dataset: str
    fingerprint: str
    """`Source.fingerprint` of what was measured on: equal ones make numbers comparable."""
    weights: str
    seed: int
    seconds: float
    identity: str
    """Of all that decides the numbers: where it is equal nothing needs to be measured again."""
    config: dict[str, Any]


def write_result(path: str | os.PathLike[str], result: Result) -> None:
    """Write a result as JSON: beside its place first, then renamed, so that no reader sees half.

    Makes missing folders and replaces an older result; a metric that is NaN raises ValueError.
    """
    path = Path(path)
    text = json.dumps(asdict(result), indent=2, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def keep_other(path: Path, result: Result) -> Path | None:
    """Make room for a result: rename what `path` holds if it is of another measurement.

    To <name>-<first digits of its identity>.json beside it, which is returned. The same measurement
    of other weights under the same name, and what is no result, stay to be replaced.
    """
    if not path.is_file():
        return None
    try:
        other = read_result(path)
    except DataError:
        return None
    if _measurement(other) == _measurement(result):
        return None
    kept = path.with_name(f"{path.stem}-{other.identity[:8]}{path.suffix}")
    path.replace(kept)
    return kept


def _measurement(result: Result) -> tuple[object, ...]:
    """What was measured and how, as the command said it."""
    settings = [result.config.get(key) for key in ("benchmark", "eval_transform", "normalization")]
    weights = os.path.abspath(os.path.expanduser(result.weights))
    return weights, result.dataset, result.fingerprint, result.seed, settings


def read_results(folder: str | os.PathLike[str]) -> list[Result]:
    """All results of a folder, by file name; none for a folder that does not exist."""
    return [read_result(path) for path in sorted(Path(folder).glob("*.json"))]


def read_result(path: Path) -> Result:
    """One result file; DataError if it is none."""
    names = [field.name for field in fields(Result)]
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); evaluate again or remove it") from error
    missing = [name for name in names if not isinstance(data, dict) or name not in data]
    if missing:
        raise DataError(f"{path} is no result: {', '.join(missing)} missing; remove it")
    return Result(**{name: data[name] for name in names})


def result_rows(results: Sequence[Result]) -> list[dict[str, object]]:
    """A table row per result: what was measured, by its name, on what, then its metrics."""
    return [
        {
            "benchmark": r.config.get("result") or r.benchmark,
            "dataset": r.dataset,
            "weights": r.weights,
            **r.metrics,
        }
        for r in results
    ]


def format_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as aligned text: a column per key, in the order of first appearance.

    Numbers are aligned right and floats have two decimals; a key that a row lacks is left blank.
    """
    if not rows:
        return ""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    right = [any(isinstance(row.get(column), int | float) for row in rows) for column in columns]
    lines = [
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [cells[0], ["-" * width for width in widths], *cells[1:]]
    ]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)
