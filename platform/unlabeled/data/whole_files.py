"""Files that are there as a whole or not at all."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from unlabeled.errors import EnvironmentProblem


def write_table(path: Path, columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """A CSV table; every text is quoted, so that any file name survives, line breaks included."""

    def writer(file: BinaryIO) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        table = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        table.writerow(columns)
        table.writerows(lines)
        text.flush()
        text.detach()

    write_file(path, writer)


def write_file(path: Path, writer: Callable[[BinaryIO], Any]) -> None:
    """Write beside, flush to the disk, then rename; a full or read-only disk is named."""
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            writer(file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise EnvironmentProblem(f"cannot write {path}: {error.strerror}") from error
