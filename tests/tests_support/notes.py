"""Reads what the plugin `note_samples` noted; it registers nothing in the tests' own process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple


class Note(NamedTuple):
    """The images of one micro-batch of one rank; notes sort by the order of one process."""

    step: int
    micro_step: int
    rank: int
    indices: list[int]


def notes(folder: Path) -> list[Note]:
    """All notes of a run, in the order of its positions."""
    lines = [line for file in folder.glob("rank*") for line in file.read_text().splitlines()]
    return sorted(Note(*json.loads(line)) for line in lines)
