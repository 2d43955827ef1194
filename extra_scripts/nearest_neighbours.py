"""A contact sheet of images and those whose features are nearest to theirs.

    python extra_scripts/nearest_neighbours.py features neighbours.html
    python extra_scripts/nearest_neighbours.py features neighbours.html --files cat/1.jpg dog/7.jpg

`features` is what `unlabeled extract` wrote, and the images must still be where they were then.
Neighbours are exact, by cosine similarity; an image is not its own neighbour. The page holds small
copies of the pictures and needs no other file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from unlabeled.cli.script import run_script
from unlabeled.clustering.neighbours import nearest
from unlabeled.data.sources.base import Source
from unlabeled.data.whole_files import write_file
from unlabeled.errors import ConfigError
from unlabeled.evaluation.contact_sheet import Group, Picture, contact_sheet
from unlabeled.evaluation.feature_store import FeatureStore


def chosen_rows(store: FeatureStore, files: list[str] | None, count: int, seed: int) -> list[int]:
    """The rows of the named files, or some at random."""
    if files is None:
        draw = np.random.default_rng(seed)
        return sorted(draw.choice(len(store), size=min(count, len(store)), replace=False).tolist())
    wanted = set(files)
    found = {each.file: each.row for each in store.index() if each.file in wanted}
    missing = [file for file in files if file not in found]
    if missing:
        raise ConfigError(
            f"--files: {missing[0]!r} has no row; names are those of the index in "
            f"{store.place.folder}"
        )
    return [found[file] for file in files]


def neighbours(
    store: FeatureStore, rows: list[int], count: int, layer: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Similarities [n, k] and rows [n, k] of the nearest, themselves among them, nearest first.

    One shard at a time is in memory; of equal similarities the earlier row is nearer.
    """
    queries = torch.from_numpy(store.rows(np.array(rows), layer))
    values = torch.empty(len(rows), 0)
    places = torch.empty(len(rows), 0, dtype=torch.int64)
    first = 0
    for shard in store.shards(layer):
        if len(shard):
            found, where = nearest(
                torch.from_numpy(np.array(shard)), queries, k=min(count, len(shard))
            )
            values = torch.cat([values, found], dim=1)
            places = torch.cat([places, where + first], dim=1)
            values, order = values.sort(dim=1, descending=True, stable=True)
            values, places = values[:, :count], places.gather(1, order[:, :count])
        first += len(shard)
    return values.numpy(), places.numpy()


def groups(
    store: FeatureStore, source: Source, rows: list[int], count: int, layer: str | None
) -> list[Group]:
    """A line of the sheet for every query: itself, then its neighbours."""
    # One more than asked, for the query is among those nearest to it.
    values, places = neighbours(store, rows, min(count + 1, len(store)), layer)
    lines = []
    for row, similarities, found in zip(rows, values, places, strict=True):
        near = [(int(i), float(s)) for i, s in zip(found, similarities, strict=True) if i != row]
        pictures = [Picture(int(store.images[row]), "query" + label_of(store, row))]
        pictures += [
            Picture(int(store.images[i]), f"{s:.3f}{label_of(store, i)}") for i, s in near[:count]
        ]
        lines.append(Group(source.name(pictures[0].image), pictures, marked=True))
    return lines


def label_of(store: FeatureStore, row: int) -> str:
    """The class of a row after a comma, if the data set has labels."""
    return "" if store.labels is None else f", {store.classes[int(store.labels[row])]}"


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("features", type=Path, help="folder that `unlabeled extract` wrote")
    parser.add_argument("target", type=Path, help="page to write (.html)")
    parser.add_argument("--files", nargs="+", help="queries by name (as the index has them)")
    parser.add_argument("--queries", type=int, default=20, help="how many at random (20)")
    parser.add_argument("--neighbours", type=int, default=10, help="of every query (10)")
    parser.add_argument("--layer", help="whose features (the first)")
    parser.add_argument("--seed", type=int, default=0, help="of the random queries (0)")
    parser.add_argument("--side", type=int, default=128, help="of the pictures, in pixels (128)")
    return parser.parse_args()


def main() -> None:
    """Open, search, write."""
    given = parsed()
    for name in ("queries", "neighbours", "side"):
        if getattr(given, name) < 1:
            raise ConfigError(f"--{name}: must be 1 or more, got {getattr(given, name)}")
    store = FeatureStore(given.features)
    source = store.source()
    rows = chosen_rows(store, given.files, given.queries, given.seed)
    lines = groups(store, source, rows, given.neighbours, given.layer)
    title = f"Nearest neighbours in {given.features}"
    page = contact_sheet(title, lines, source, side=given.side)
    write_file(given.target.expanduser(), lambda file: file.write(page.encode()))
    print(f"{len(rows)} queries among {len(store)} images: {given.target}")


if __name__ == "__main__":
    run_script(main)
