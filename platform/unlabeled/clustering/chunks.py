"""Rows in pieces, so that no matrix of rows x clusters is ever held as a whole."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

CPU_ENTRIES = 2**22
"""Entries of one block of scores on the CPU: 16 MiB of float32 stay in its last cache."""
DEVICE_ENTRIES = 2**25
"""The same on a GPU, where a product must be large to fill it: 128 MiB."""


def row_chunks(num_rows: int, chunk_rows: int) -> Iterator[slice]:
    """Slices that cover the rows in order, at most `chunk_rows` at a time."""
    for start in range(0, num_rows, chunk_rows):
        yield slice(start, min(start + chunk_rows, num_rows))


def score_chunks(features: Tensor, num_columns: int) -> Iterator[slice]:
    """Rows of the features [n, D] of which each has `num_columns` scores in a block."""
    entries = CPU_ENTRIES if features.device.type == "cpu" else DEVICE_ENTRIES
    return row_chunks(len(features), max(1, entries // num_columns))
