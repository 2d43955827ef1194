"""Few labels: which images of a data set keep theirs, by share, by number or by a list."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from unlabeled.config.ranges import at_least
from unlabeled.data.sources.base import Source
from unlabeled.data.sources.file_list import read_lines
from unlabeled.errors import DataError


@dataclass(frozen=True, kw_only=True)
class LabelledSubset:
    """Which training images keep their labels: one of the fields says it, the others are null."""

    fraction: float | None = None
    """Share of every class, rounded by largest remainders (SimCLR: 0.01 and 0.1)."""
    per_class: int | None = None
    """Images of every class (SwAV, table 10: 13 and 128)."""
    list: str | None = None
    """Text file that names them, one a line: paths, or file names alone, as SimCLR's lists do."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Ranges, and that one is given."""
        given = [name for name, value in vars(self).items() if value is not None]
        if len(given) != 1:
            yield (
                given[0] if given else "fraction",
                f"give one of fraction, per_class and list and set the others to null, got "
                f"{' and '.join(given) or 'none'}",
            )
        if self.fraction is not None and not 0 < self.fraction <= 1:
            yield "fraction", f"must lie in (0, 1], got {self.fraction}"
        yield from at_least(self, 1, "per_class")

    def __str__(self) -> str:
        if self.fraction is not None:
            return f"{100 * self.fraction:g}% of the labels"
        if self.per_class is not None:
            return f"{self.per_class} labels a class"
        return f"the labels listed in {os.path.basename(str(self.list))}"


def choose(source: Source, subset: LabelledSubset, seed: int) -> np.ndarray:
    """Places of the chosen images, ascending: int64 [n].

    A pure function of the subset, the seed and the images' names and labels: however the source is
    ordered, it chooses the same images. Of every class it takes the first ones of an order that
    hangs on the seed alone, so that where no class gets fewer images, a subset contains the other.
    DataError: there are no labels, a class is too small or would be left without an image, or a
    listed name is not found or found twice.
    """
    labels = labels_of(source)
    if subset.list is not None:
        chosen = _listed(source, subset.list)
        counts = np.bincount(labels[chosen], minlength=source.num_classes)
    else:
        counts = class_counts(source, subset)
        chosen = draw(source, counts, seed)
    if not counts.all():
        raise DataError(_left_out(source, subset, counts))
    return chosen


def labels_of(source: Source) -> np.ndarray:
    """The labels [N]; DataError without any."""
    if source.labels is None:
        raise DataError(
            "the images have no labels, of which a subset could be chosen; give a labelled data set"
        )
    return source.labels


def class_counts(
    source: Source, subset: LabelledSubset, room: np.ndarray | None = None
) -> np.ndarray:
    """How many images of every class a share or a number a class means: int64 [C].

    At most `room` [C] of each (null: as many as there are), where a smaller subset has to lie in a
    larger one.
    """
    sizes = np.bincount(labels_of(source), minlength=source.num_classes)
    room = sizes if room is None else room
    if subset.per_class is None:
        assert subset.fraction is not None, "a list says by itself which images it means"
        return largest_remainder(subset.fraction, sizes, room)
    small = np.flatnonzero(room < subset.per_class)
    if len(small):
        raise DataError(
            f"{subset.per_class} images of every class: there are only {room[small[0]]} of "
            f"{source.classes[small[0]]!r} and too few of {len(small)} of the "
            f"{source.num_classes} classes; take at most {room.min()}"
        )
    return np.full(len(sizes), subset.per_class, dtype=np.int64)


def largest_remainder(fraction: float, sizes: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Whole numbers near fraction x sizes [C] whose sum is round(fraction x N): int64 [C].

    Every class gets the whole part of its quota; what is missing in the sum goes, one each, to the
    classes of the largest remainders, of equal ones to the first. None gets more than `room`, which
    holds the whole parts and, in sum, the result.
    """
    quotas = fraction * sizes
    counts = np.floor(quotas).astype(np.int64)
    missing = round(fraction * int(sizes.sum())) - int(counts.sum())
    while missing > 0:  # one turn, unless the classes with room are fewer than what is missing
        remainders = np.where(counts < room, quotas - counts, -np.inf)
        given = min(missing, int((counts < room).sum()))
        counts[np.argsort(-remainders, kind="stable")[:given]] += 1
        missing -= given
    return counts


def draw(source: Source, counts: np.ndarray, seed: int) -> np.ndarray:
    """Places of `counts` [C] images of the classes, ascending: the first ones in the seed's order.

    An image's place in that order is the SHA-256 of seed and name.
    """
    labels = labels_of(source)
    sizes = np.bincount(labels, minlength=len(counts))
    order = np.array(sorted(range(len(source)), key=lambda i: _key(seed, source.name(i))))
    by_class = order[np.argsort(labels[order], kind="stable")]
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # within the class
    return np.sort(by_class[place < np.repeat(counts, sizes)])


def _key(seed: int, name: str) -> bytes:
    return hashlib.sha256(b"%d %b" % (seed, os.fsencode(name))).digest()


def _listed(source: Source, file: str) -> np.ndarray:
    """Places of the images that a list names, by their whole names or by their file names."""
    wanted = set(read_lines(file))
    if not wanted:
        raise DataError(f"{file} names no images")
    found: dict[str, int] = {}
    for index in range(len(source)):
        name = source.name(index)
        for line in {name, os.path.basename(name)} & wanted:
            if line in found:
                raise DataError(
                    f"{file}: {line} may be {source.name(found[line])} or {name}; list paths as "
                    "the data set has them"
                )
            found[line] = index
    if missing := sorted(wanted - found.keys()):
        raise DataError(
            f"{file}: {len(missing)} of {len(wanted)} images are not in the data set, the first "
            f"{missing[0]}; its own names are like {source.name(0)}"
        )
    return np.array(sorted(set(found.values())), dtype=np.int64)


def _left_out(source: Source, subset: LabelledSubset, counts: np.ndarray) -> str:
    empty = [source.classes[label] for label in np.flatnonzero(counts == 0)]
    sizes = np.bincount(labels_of(source), minlength=len(counts))
    way_out = "list some images of them"
    if subset.list is None:
        way_out = (
            f"take at least 1/{sizes.min()} of the images"
            if sizes.min()
            else "give a data set that has images of all its classes"
        )
    return (
        f"{subset}: {counts.sum()} of {len(source)} images leave {len(empty)} of {len(counts)} "
        f"classes without one ({_some(empty)}); {way_out}"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
