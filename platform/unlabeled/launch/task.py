"""What a process that is started for us does before it imports anything heavy of ours."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

from unlabeled import process


def begin(pickled: bytes) -> Any:
    """What was pickled, with all that it imports, in the process that will call it."""
    process.will_end_quickly()
    with process.importing():
        return pickle.loads(pickled)


def call(pickled: bytes, *arguments: Any) -> None:
    """For a process that is started with a function to call."""
    begin(pickled)(*arguments)


@dataclass(frozen=True)
class Pickled:
    """For a process that reads a pickle and calls what it holds: it reads what was pickled here."""

    pickled: bytes

    def __reduce__(self) -> tuple[Any, ...]:
        """As the process reads it."""
        return begin, (self.pickled,)
