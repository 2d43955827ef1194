"""From what people write as labels to class numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def class_names(*label_lists: Iterable[str]) -> tuple[str, ...]:
    """The classes of all splits together: whole numbers by value, anything else alphabetically."""
    found = set().union(*label_lists)
    if all(label.isdecimal() for label in found):
        return tuple(sorted(found, key=lambda label: (int(label), label)))
    return tuple(sorted(found))


def class_numbers(labels: Sequence[str], classes: tuple[str, ...]) -> np.ndarray:
    """Int64 [N]: the place of each label in `classes`."""
    number = {name: place for place, name in enumerate(classes)}
    return np.fromiter((number[label] for label in labels), dtype=np.int64, count=len(labels))
