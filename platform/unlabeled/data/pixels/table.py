"""Plans as numbers: how steps travel to compiled code and to the device."""

from __future__ import annotations

import numpy as np

from unlabeled.data.pixels.base import STEPS, Steps

CODES = {name: code for code, name in enumerate(STEPS, start=1)}
"""A step's number in tables; 0 means no step."""


def write_steps(steps: Steps, row: np.ndarray) -> None:
    """Fill a table float64 [T, 2] with (code, number) of at most T steps, then zeros."""
    named = [(CODES[step[0]], step[1]) for step in steps if not callable(step)]
    assert len(named) == len(steps), "only the reference backend runs Python steps"
    row[: len(named)] = named or 0.0
    row[len(named) :] = 0.0
