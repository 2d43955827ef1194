"""Numbers outside of their range are told field by field."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unlabeled.config.ranges import at_least, positive


@dataclass
class Numbers:
    """Fields of every sign."""

    zero: int = 0
    negative: float = -0.5
    small: float = 1e-9
    one: int = 1
    large: float = math.inf
    none: float | None = None
    not_a_number: float = math.nan


def test_what_is_below_is_named_in_turn_and_null_is_below_nothing() -> None:
    every = Numbers.__dataclass_fields__
    assert list(at_least(Numbers(), 1, *every)) == [
        ("zero", "must be 1 or more, got 0"),
        ("negative", "must be 1 or more, got -0.5"),
        ("small", "must be 1 or more, got 1e-09"),
        ("not_a_number", "must be 1 or more, got nan"),
    ]
    assert list(positive(Numbers(), *every)) == [
        ("zero", "must be positive, got 0"),
        ("negative", "must be positive, got -0.5"),
        ("not_a_number", "must be positive, got nan"),
    ]
    assert [name for name, _ in at_least(Numbers(), 0, *every)] == ["negative", "not_a_number"]
    assert not list(positive(Numbers(), "one", "large"))
