"""Features on disk: where they lie, and how they are read back without filling the memory.

<folder>/features.json            what they were made of; `complete` once all is there
         index.csv                row, image, file, label, shard: a line for every row
         broken.csv               image, file, reason: what cannot be decoded and has no row
                                  (both .parquet with index=parquet)
         features/<layer>/00000.npy   [rows, D], float32 or float16
         shards/00000.json        how many rows a whole shard has, and its broken images

`image` is the place in the data set, `row` the place among the features of all shards in their
order. Names are kept byte by byte; how, says unlabeled.evaluation.feature_tables.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from unlabeled.config.check import build_config
from unlabeled.data.npy_files import map_array
from unlabeled.data.sources.base import Source
from unlabeled.errors import DataError
from unlabeled.evaluation.feature_tables import TableFormat, read_lines
from unlabeled.registry import Component

FORMAT = 1
INDEX_COLUMNS = ("row", "image", "file", "label", "shard")
BROKEN_COLUMNS = ("image", "file", "reason")


@dataclass(frozen=True)
class Place:
    """The paths below a folder of features."""

    folder: Path

    @property
    def card(self) -> Path:
        """What the features were made of."""
        return self.folder / "features.json"

    def index(self, kind: TableFormat) -> Path:
        """A line for every row."""
        return self.folder / f"index.{kind}"

    def broken(self, kind: TableFormat) -> Path:
        """A line for every image without a row."""
        return self.folder / f"broken.{kind}"

    def shard(self, layer: str, number: int) -> Path:
        """The features of a layer for one shard."""
        return self.folder / "features" / layer / f"{number:05d}.npy"

    def record(self, number: int) -> Path:
        """Written last: its shard is whole."""
        return self.folder / "shards" / f"{number:05d}.json"


@dataclass(frozen=True)
class IndexRow:
    """A line of the index; `label` is None for an image without one."""

    row: int
    image: int
    file: str
    label: int | None
    shard: int


@dataclass(frozen=True)
class _Images:
    dataset: Annotated[Component, "dataset"]


class FeatureStore:
    """Finished features, memory-mapped; the constructor takes the folder.

    card: features.json as it is. DataError if the folder holds none, or unfinished ones, or if a
    file is missing or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.place = Place(Path(folder).expanduser())
        self.card = read_card(self.place.card)
        if not self.card["complete"]:
            raise DataError(
                f"{self.place.folder} is not complete; the command that began it goes on with it"
            )
        self._shard_rows: list[int] = self.card["shard_rows"]
        self._first_rows: list[int] = [0, *accumulate(self._shard_rows)]

    def __len__(self) -> int:
        """How many rows there are."""
        return self._first_rows[-1]

    @property
    def layers(self) -> dict[str, int]:
        """The width D of every layer."""
        widths: dict[str, int] = self.card["layers"]
        return widths

    @property
    def classes(self) -> tuple[str, ...]:
        """What the labels mean; empty without labels."""
        return tuple(self.card["classes"])

    def shards(self, layer: str | None = None) -> Iterator[np.ndarray]:
        """The features [rows, D] of one shard after the other, read-only and left on disk.

        layer: None stands for the first.
        """
        for number in range(len(self._shard_rows)):
            yield self.shard(number, layer)

    def shard(self, number: int, layer: str | None = None) -> np.ndarray:
        """The features [rows, D] of one shard, read-only and left on disk."""
        layer = self._known(layer)
        shape = (self._shard_rows[number], self.layers[layer])
        return read_shard(self.place.shard(layer, number), shape, self.card["dtype"])

    def rows(self, rows: np.ndarray, layer: str | None = None) -> np.ndarray:
        """The features [n, D] of these rows in this order, as a copy; rows int [n]."""
        layer = self._known(layer)
        found = np.empty((len(rows), self.layers[layer]), dtype=self.card["dtype"])
        owners = np.array([self.shard_of(int(row)) for row in rows], dtype=np.int64)
        for number in np.unique(owners):
            mine = owners == number
            found[mine] = self.shard(number, layer)[rows[mine] - self._first_rows[number]]
        return found

    def shard_of(self, row: int) -> int:
        """The shard that a row lies in."""
        if not 0 <= row < len(self):
            raise IndexError(row)
        return bisect_right(self._first_rows, row) - 1

    def index(self) -> Iterator[IndexRow]:
        """The lines of the index, in the order of the rows."""
        kind = self._tables
        for line in read_lines(self.place.index(kind), INDEX_COLUMNS, kind):
            yield IndexRow(*line)

    def broken(self) -> Iterator[tuple[int, str, str]]:
        """(image, file, reason) of every image without a row."""
        kind = self._tables
        for line in read_lines(self.place.broken(kind), BROKEN_COLUMNS, kind):
            image, file, reason = line
            yield image, file, reason

    @property
    def _tables(self) -> TableFormat:
        # Folders that do not say it are older than the choice.
        kind: TableFormat = self.card.get("index", "csv")
        return kind

    @cached_property
    def images(self) -> np.ndarray:
        """The place in the data set of every row, int64 [N]."""
        rows = (each.image for each in self.index())
        return np.fromiter(rows, dtype=np.int64, count=len(self))

    @cached_property
    def labels(self) -> np.ndarray | None:
        """The class of every row, int64 [N], or None without labels."""
        if not self.classes:
            return None
        rows = (-1 if each.label is None else each.label for each in self.index())
        return np.fromiter(rows, dtype=np.int64, count=len(self))

    def source(self) -> Source:
        """The data set that the features were made of; DataError if it is another one now."""
        dataset = build_config(_Images, {"dataset": self.card["dataset"]}).dataset
        source: Source = dataset.build(split=self.card["split"])
        if (source.fingerprint(), len(source)) != (self.card["data"], self.card["images"]):
            raise DataError(
                f"the images of {self.place.folder} are not those that it was made of any more: "
                f"{len(source)} with fingerprint {source.fingerprint()}, then "
                f"{self.card['images']} with {self.card['data']}"
            )
        return source

    def _known(self, layer: str | None) -> str:
        layer = next(iter(self.layers)) if layer is None else layer
        if layer not in self.layers:
            raise DataError(
                f"{self.place.folder} has no layer {layer!r}; it has {', '.join(self.layers)}"
            )
        return layer


def read_card(path: Path) -> dict[str, Any]:
    """features.json; DataError if it is missing or none."""
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"{path.parent} holds no features (no {path.name}); make some with `unlabeled extract`"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise DataError(f"{path} is no description of features that this version reads")
    return card


def read_shard(path: Path, shape: tuple[int, int], dtype: str) -> np.ndarray:
    """A shard, memory-mapped and read-only; DataError if it is not of this shape and type."""
    try:
        array = map_array(path)
    except DataError as error:
        raise DataError(f"{error}; extract into this folder again") from error
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise DataError(
            f"{path} holds {array.shape} of {array.dtype}, expected {shape} of {dtype}; remove it "
            "and extract into this folder again"
        )
    return array
