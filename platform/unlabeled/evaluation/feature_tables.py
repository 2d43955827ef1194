"""The tables beside features on disk: a line for every row, as CSV or as Parquet.

Both hold the same lines. A file name is bytes. A CSV table keeps them as they are; read it as UTF-8
with errors="surrogateescape". Parquet texts must be UTF-8: `file` then has U+FFFD in the place of
other bytes, and `file_bytes` (null elsewhere) the name as it is.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Literal

from unlabeled.data.whole_files import write_file, write_table
from unlabeled.errors import DataError, EnvironmentProblem

TableFormat = Literal["csv", "parquet"]

_TYPES = {"row": "int64", "image": "int64", "label": "int64", "shard": "int32"}
"""Of the columns that are numbers; the others are texts."""
_NAME, _NAME_BYTES = "file", "file_bytes"
_LINES_AT_ONCE = 1 << 16


def require_format(kind: TableFormat) -> None:
    """EnvironmentProblem if tables of this kind cannot be written here."""
    if kind == "parquet":
        _pyarrow()


def write_lines(
    path: Path, columns: Sequence[str], lines: Iterable[Sequence[Any]], kind: TableFormat
) -> None:
    """A table as a whole or not at all; in every line a number, None or a text per column."""
    if kind == "csv":
        write_table(path, columns, lines)
    else:
        write_file(path, lambda file: _write_parquet(file, columns, lines))


def read_lines(path: Path, columns: Sequence[str], kind: TableFormat) -> Iterator[list[Any]]:
    """The lines of a table, numbers as int, an empty cell as None.

    DataError: it is missing, damaged, or has other columns.
    """
    return _read_csv(path, columns) if kind == "csv" else _read_parquet(path, columns)


def _read_csv(path: Path, columns: Sequence[str]) -> Iterator[list[Any]]:
    numbers = [column in _TYPES for column in columns]
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            lines = csv.reader(file)
            _require_columns(path, next(lines, []), columns)
            for line in lines:
                yield [
                    (int(cell) if cell else None) if number else cell
                    for cell, number in zip(line, numbers, strict=True)
                ]
    except (OSError, csv.Error, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _write_parquet(file: BinaryIO, columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    pyarrow = _pyarrow()
    kinds = [(column, getattr(pyarrow, _TYPES.get(column, "string"))()) for column in columns]
    schema = pyarrow.schema([*kinds, (_NAME_BYTES, pyarrow.binary())])
    left = iter(lines)
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while some := list(itertools.islice(left, _LINES_AT_ONCE)):
            cells = dict(zip(columns, map(list, zip(*some, strict=True)), strict=True))
            cells[_NAME_BYTES] = [_bytes_unless_text(name) for name in cells[_NAME]]
            for column in columns:
                if column not in _TYPES:
                    cells[column] = [_as_text(cell) for cell in cells[column]]
            writer.write_table(pyarrow.table(cells, schema=schema))


def _read_parquet(path: Path, columns: Sequence[str]) -> Iterator[list[Any]]:
    pyarrow = _pyarrow()
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _require_columns(path, file.schema_arrow.names, [*columns, _NAME_BYTES])
            for batch in file.iter_batches(batch_size=_LINES_AT_ONCE):
                cells = batch.to_pydict()
                for place, exact in enumerate(cells[_NAME_BYTES]):
                    if exact is not None:
                        cells[_NAME][place] = exact.decode("utf-8", "surrogateescape")
                yield from map(list, zip(*(cells[column] for column in columns), strict=True))
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _require_columns(path: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    if list(found) != list(wanted):
        raise DataError(f"{path} must have the columns {', '.join(wanted)}")


def _as_text(cell: str) -> str:
    return cell.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _bytes_unless_text(name: str) -> bytes | None:
    return None if _as_text(name) == name else name.encode("utf-8", "surrogateescape")


def _pyarrow() -> ModuleType:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise EnvironmentProblem(
            f"index=parquet needs pyarrow ({error}): run `pip install 'unlabeled[parquet]'`, or "
            "take index=csv"
        ) from error
    module: ModuleType = pyarrow
    return module
