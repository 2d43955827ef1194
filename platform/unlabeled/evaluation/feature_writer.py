"""Writing features shard by shard, so that a kill costs the unfinished shards and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.data.sources.base import Source
from unlabeled.data.sources.roots import nothing_decoded
from unlabeled.data.whole_files import write_file
from unlabeled.errors import ConfigError, DataError, EnvironmentProblem
from unlabeled.evaluation.feature_store import (
    BROKEN_COLUMNS,
    FORMAT,
    INDEX_COLUMNS,
    Place,
    read_card,
    read_shard,
)
from unlabeled.evaluation.feature_tables import TableFormat, write_lines

Broken = tuple[int, str, str]
"""(image, name, reason)."""


class FeatureWriter:
    """Fills a folder that `FeatureStore` reads.

    made_of: all that decides the numbers and their order (weights, images, view, layers and their
    widths, type, images per shard); a folder that was begun with anything else is refused. about:
    what readers are told beside it. tables: what kind the index is. Shard k is of the images from
    k S to (k + 1) S. Every file is written beside its place and renamed, under a name that the next
    attempt takes again: a reader never sees a part, and a kill leaves nothing that stays.
    DDP: rank 0 calls `open` and `finish`, every rank `write` for shards of its own.
    """

    def __init__(
        self,
        folder: Path,
        made_of: Mapping[str, Any],
        about: Mapping[str, Any],
        tables: TableFormat = "csv",
    ) -> None:
        self.place = Place(folder)
        self._made_of, self._about = dict(made_of), {**about, "index": tables}
        self._tables = tables
        self._images: int = made_of["images"]
        self._shard_images: int = made_of["shard_images"]

    @property
    def num_shards(self) -> int:
        """Shards of the whole data set."""
        return -(-self._images // self._shard_images)

    def images_of(self, number: int) -> range:
        """The images of a shard, by their place in the data set."""
        start = number * self._shard_images
        return range(start, min(start + self._shard_images, self._images))

    def ends_shard(self, image: int) -> bool:
        """Whether it is the last image of its shard."""
        return image + 1 in (self._images, self.images_of(image // self._shard_images).stop)

    def open(self) -> list[int]:
        """Begin the folder or go on with it; the shards that are still to be written."""
        if self.place.card.exists():
            self._check(read_card(self.place.card))
        else:
            self._begin()
        return [number for number in range(self.num_shards) if self._record(number) is None]

    def _check(self, card: Mapping[str, Any]) -> None:
        differing = [
            f"{key}: {card.get(key)!r} there, {value!r} now"
            for key, value in self._made_of.items()
            if card.get(key) != value
        ]
        if differing:
            raise ConfigError(
                [
                    f"out: {self.place.folder} holds features of other settings; give another "
                    "folder, or the settings it was begun with",
                    *differing,
                ]
            )

    def _begin(self) -> None:
        folder = self.place.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Hidden: what a kill left while the first file was written.
            others = sorted(e.name for e in folder.iterdir() if not e.name.startswith("."))
        except OSError as error:
            raise EnvironmentProblem(f"out: cannot use {folder}: {error.strerror}") from error
        if others:
            raise ConfigError(
                f"out: {folder} holds other files ({', '.join(others[:3])}); give an empty folder"
            )
        self._write_card(complete=False)

    def _write_card(self, **state: Any) -> None:
        card = {"format": FORMAT, **state, **self._made_of, **self._about}
        text = json.dumps(card, indent=2) + "\n"
        write_file(self.place.card, lambda file: file.write(text.encode()))

    def write(
        self, number: int, features: Mapping[str, np.ndarray], broken: Sequence[Broken]
    ) -> None:
        """One whole shard: features [rows, D] of every layer, without those of broken images."""
        for layer, rows in features.items():
            _save(self.place.shard(layer, number), rows)
        record = {"rows": len(self.images_of(number)) - len(broken), "broken": list(broken)}
        text = json.dumps(record) + "\n"
        write_file(self.place.record(number), lambda file: file.write(text.encode()))

    def _record(self, number: int) -> dict[str, Any] | None:
        """What is known of a shard that is whole; None if a part of it is missing or damaged."""
        try:
            record: dict[str, Any] = json.loads(self.place.record(number).read_bytes())
            for layer, width in self._made_of["layers"].items():
                shape = (record["rows"], width)
                read_shard(self.place.shard(layer, number), shape, self._made_of["dtype"])
        except (OSError, ValueError, DataError):
            return None
        return record

    def finish(self, source: Source) -> None:
        """Write the tables, then say that the features are complete."""
        records = [self._record(number) for number in range(self.num_shards)]
        whole = [record for record in records if record is not None]
        if len(whole) < len(records):
            raise EnvironmentProblem(
                f"out: shard {records.index(None)} is not in {self.place.folder}; all processes "
                "must write to the same disk"
            )
        broken = {image: (name, why) for record in whole for image, name, why in record["broken"]}
        if len(broken) == self._images:
            raise nothing_decoded(source, *next(iter(broken.values())))
        lines = ((image, name, why) for image, (name, why) in sorted(broken.items()))
        kind = self._tables
        write_lines(self.place.broken(kind), BROKEN_COLUMNS, lines, kind)
        write_lines(self.place.index(kind), INDEX_COLUMNS, self._index(source, broken), kind)
        self._write_card(
            complete=True,
            rows=self._images - len(broken),
            shard_rows=[record["rows"] for record in whole],
        )

    def _index(self, source: Source, broken: Mapping[int, Any]) -> Iterable[tuple[Any, ...]]:
        row = 0
        for number in range(self.num_shards):
            for image in self.images_of(number):
                if image not in broken:
                    label = None if source.labels is None else int(source.labels[image])
                    yield row, image, source.name(image), label, number
                    row += 1


def _save(path: Path, rows: np.ndarray) -> None:
    write_file(path, lambda file: np.save(file, rows, allow_pickle=False))
