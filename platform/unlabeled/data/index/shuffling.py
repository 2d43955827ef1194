"""An index in a random order, for a single pass that reads it from its beginning to its end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unlabeled.data.index.layout import Header
from unlabeled.data.index.listings import index_records
from unlabeled.data.index.reader import Index
from unlabeled.data.index.writer import write_index
from unlabeled.data.sampling.permutation import Permutation
from unlabeled.errors import ConfigError

PLACES_AT_ONCE = 1 << 14


def shuffle(index: Index, out: Path, *, seed: int) -> Header:
    """Write the same entries in the order of the keyed permutation of (len, seed), to `out`."""
    out = out.expanduser()
    if out.exists():
        raise ConfigError(f"{out} is there already; give another name")
    beside = out.with_name(f".{out.name}.part")
    header = write_index(
        beside,
        index_records(index, _places(len(index), seed)),
        base=os.path.dirname(os.path.realpath(os.fsencode(out))),
        classes=index.classes(),
        problems=index.header.problems,
    )
    beside.rename(out)
    return header


def _places(size: int, seed: int) -> Iterator[int]:
    order = Permutation(size, seed)
    for first in range(0, size, PLACES_AT_ONCE):
        positions = np.arange(first, min(first + PLACES_AT_ONCE, size))
        yield from map(int, order(positions))
