"""The one number that most operations share."""

from __future__ import annotations

from collections.abc import Iterator


def probability_problems(p: float) -> Iterator[tuple[str, str]]:
    """Faults of the probability `p` with which an operation acts."""
    if not 0 <= p <= 1:
        yield "p", f"must be a probability in [0, 1], got {p}"
