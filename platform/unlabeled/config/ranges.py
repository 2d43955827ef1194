"""Ranges of numbers for the `problems()` of configs: one wording for the same fault everywhere."""

from __future__ import annotations

from collections.abc import Iterator


def at_least(config: object, minimum: int, *names: str) -> Iterator[tuple[str, str]]:
    """The named fields that hold less, or no number that can be compared; null passes."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= minimum:
            yield name, f"must be {minimum} or more, got {value}"


def positive(config: object, *names: str) -> Iterator[tuple[str, str]]:
    """The named fields that hold 0 or less, or no number that can be compared; null passes."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > 0:
            yield name, f"must be positive, got {value}"
