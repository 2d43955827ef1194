"""Images named by a table: one row each, with columns for label and split."""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unlabeled.data.decode import decode_file
from unlabeled.data.sources.base import Source, Split
from unlabeled.data.sources.labels import class_names, class_numbers
from unlabeled.data.sources.paths import PathList
from unlabeled.errors import DataError
from unlabeled.registry import register


@register("dataset", "csv")
class Csv(Source):
    """The images of a table with a header line, in its order.

    Relative paths start at `root`, or where the table lies. Without a split column all rows are for
    training. Classes are those of all rows, numbers sorted by value. Paths are taken as they are,
    blanks at their ends included; labels and splits without those. Rows of empty cells are left
    out. Files are not looked at before they are used. DataError: the table is missing or
    unreadable, a column does not exist, a path or a label is empty, or no row belongs to the split.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        path: str
        """The table; ~ is expanded."""
        path_column: str = "path"
        """Column of the images' paths."""
        label_column: str | None = None
        """Column of the labels, names or whole numbers; null: no labels."""
        split_column: str | None = None
        """Column that says which split a row belongs to; null: all rows are for training."""
        train_values: list[str] = field(default_factory=lambda: ["train"])
        """What the split column says for training."""
        test_values: list[str] = field(
            default_factory=lambda: ["test", "val", "valid", "validation"]
        )
        """What the split column says for testing."""
        root: str | None = None
        """Folder that relative paths start at; null: the folder that the table lies in."""
        delimiter: str = ","
        """What separates columns."""

        def problems(self) -> Iterator[tuple[str, str]]:
            if len(self.delimiter) != 1:
                yield "delimiter", f"must be one character, got {self.delimiter!r}"

    def __init__(self, config: Config, *, split: Split) -> None:
        if split == "test" and config.split_column is None:
            raise DataError(
                f"{config.path} has no test split: name the column that tells as split_column"
            )
        rows = _rows(config)
        start = Path(config.path).parent if config.root is None else Path(config.root)
        self.root = str(start.expanduser())
        wanted = config.train_values if split == "train" else config.test_values
        chosen = [row for row in rows if config.split_column is None or row[2] in wanted]
        if not chosen:
            raise DataError(_nothing_chosen(config, split, wanted, {row[2] for row in rows}))
        self._paths = PathList(path for path, _, _ in chosen)
        if config.label_column is not None:
            self.classes = class_names(label for _, label, _ in rows)
            self.labels = class_numbers([label for _, label, _ in chosen], self.classes)

    def __len__(self) -> int:
        return len(self._paths)

    def image(self, index: int) -> np.ndarray:
        path = os.path.join(self.root, self._paths[index])
        return decode_file(path, at_least=self.decode_at_least)

    def name(self, index: int) -> str:
        """The path as the table has it."""
        return self._paths[index]


def _rows(config: Csv.Config) -> list[tuple[str, str, str]]:
    """(path, label, split) of every row; empty strings for columns that are not asked for."""
    try:
        path = Path(config.path).expanduser()
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, delimiter=config.delimiter)
            header = next(reader, [])
            columns = [
                _column(header, name, field_name, config.path)
                for field_name, name in (
                    ("path_column", config.path_column),
                    ("label_column", config.label_column),
                    ("split_column", config.split_column),
                )
            ]
            return [
                _row(row, columns, reader.line_num, config.path)
                for row in reader
                if any(cell.strip() for cell in row)
            ]
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {config.path}: {reason}") from error


def _row(row: list[str], columns: list[int | None], line: int, path: str) -> tuple[str, str, str]:
    name, label, split = (row[c] if c is not None and c < len(row) else "" for c in columns)
    if not name:
        raise DataError(f"{path}, line {line}: the path is empty; fill it in or drop the row")
    if columns[1] is not None and not label.strip():
        raise DataError(f"{path}, line {line}: the label is empty; fill it in or drop the row")
    return name, label.strip(), split.strip()


def _column(header: list[str], name: str | None, field_name: str, path: str) -> int | None:
    if name is None:
        return None
    if name in header:
        return header.index(name)
    close = difflib.get_close_matches(name, header, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(header) if header else "none"
    raise DataError(f"{field_name}: {path} has no column {name!r}.{hint} Columns: {listed}")


def _nothing_chosen(config: Csv.Config, split: Split, wanted: list[str], seen: set[str]) -> str:
    if config.split_column is None:
        return f"{config.path} has no rows below its header"
    return (
        f"{config.path} has no rows for {split}: column {config.split_column!r} says "
        f"{', '.join(sorted(seen)) or 'nothing'}, {split}_values are {', '.join(wanted)}"
    )
