"""Plans as numbers: how steps travel to compiled code and to the device."""

from __future__ import annotations

import struct

import numpy as np

from unlabeled.data.pixels.base import STEPS, Steps

CODES = {name: code for code, name in enumerate(STEPS, start=1)}
"""A step's number in tables; 0 means no step."""


def write_steps(steps: Steps, row: np.ndarray) -> None:
    """Fill a contiguous table float64 [T, 2] with (code, number) of at most T steps, then zeros."""
    filled: list[float] = []
    for step in steps:
        assert not callable(step), "only the reference backend runs Python steps"
        filled += CODES[step[0]], step[1]
    filled += [0.0] * (row.size - len(filled))
    struct.pack_into(f"{len(filled)}d", row, 0, *filled)  # type: ignore[arg-type]
