"""Choose few labelled images of every class, and write which, as lists and as tables.

    python extra_scripts/make_subsets.py imagenet --fraction 0.01 0.1 --nested --out subsets
    python extra_scripts/make_subsets.py dataset=csv dataset.path=birds.csv \\
        dataset.label_column=species --per-class 13 128 --out subsets

The data is a folder of images in one folder a class (perhaps below train/), or any data set as the
commands of `unlabeled` are told it. For every size there are two files: a list of file names, one a
line, as SimCLR's 1percent.txt is (of paths where two images have the same file name), and a table
with columns path and label, which dataset=csv reads. A share of every class is rounded by largest
remainders. The same seed chooses the same images, whatever order the disk lists them in: those that
benchmark=finetune chooses with this seed. With --nested, where the smaller subset has to lie in the
larger one, rounding may differ by an image a class.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Annotated

import numpy as np

from unlabeled.cli.script import run_script
from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.data.sources.base import Source
from unlabeled.data.sources.labelled_subset import LabelledSubset, choose, class_counts, draw
from unlabeled.errors import ConfigError, DataError
from unlabeled.registry import Component


@dataclass(frozen=True)
class Data:
    """What is chosen from."""

    dataset: Annotated[Component, "dataset"]


def data_set(words: list[str], split: str) -> Source:
    """The images of a folder, or of a data set given as dataset=NAME dataset.KEY=VALUE."""
    if len(words) == 1 and "=" not in words[0]:
        words = ["dataset=folder", f"dataset.root={words[0]}"]
    composed = compose_config("measuring", words)
    given = {"dataset": composed.data.get("dataset")}
    source: Source = build_config(Data, given, composed.problems).dataset.build(split=split)
    if source.labels is None:
        raise DataError(
            f"the images of {' '.join(words)} have no labels; give one folder a class, or a table "
            "with dataset.label_column"
        )
    return source


def subsets(given: argparse.Namespace) -> dict[str, LabelledSubset]:
    """Every size that is asked for, by the name of its files."""
    made = {f"{100 * size:g}percent": LabelledSubset(fraction=size) for size in given.fraction}
    made |= {f"{count}_per_class": LabelledSubset(per_class=count) for count in given.per_class}
    if not made:
        raise ConfigError("give the sizes as --fraction 0.01 0.1 or as --per-class 13 128")
    return made


def choices(
    source: Source, wanted: dict[str, LabelledSubset], seed: int, nested: bool
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and places of every subset; nested ones from the largest to the smallest."""
    if not nested:
        for name, subset in wanted.items():
            yield name, choose(source, subset, seed)
        return
    room = None
    sizes = {name: class_counts(source, subset).sum() for name, subset in wanted.items()}
    for name in sorted(wanted, key=lambda name: -sizes[name]):
        room = class_counts(source, wanted[name], room)
        if not room.all():
            choose(source, wanted[name], seed)  # which says what is wrong
            raise DataError(f"{name}: not every class has an image in a nested subset of this size")
        yield name, draw(source, room, seed)


def listing(source: Source, places: np.ndarray) -> str:
    """File names, sorted; paths where a file name is that of two images of the data set."""
    paths = [source.name(index) for index in range(len(source))]
    times = Counter(os.path.basename(path) for path in paths)
    whole = max(times.values()) > 1
    names = [paths[i] if whole else os.path.basename(paths[i]) for i in places.tolist()]
    broken = [name for name in names if "\n" in name]
    if broken:
        raise DataError(f"{broken[0]!r} has a line break in its name, which a list cannot hold")
    return "".join(f"{name}\n" for name in sorted(names))


def table(source: Source, places: np.ndarray) -> str:
    """Paths and class names, sorted, as CSV."""
    assert source.labels is not None
    rows = sorted((source.name(i), source.classes[source.labels[i]]) for i in places.tolist())
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("path", "label"), *rows])
    return text.getvalue()


def write(path: Path, text: str) -> None:
    """As a whole or not at all; names that are no UTF-8 stay as they are."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(text.encode("utf-8", errors="surrogateescape"))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def share(text: str) -> float:
    """An argparse type: a share in (0, 1]."""
    if not 0 < float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share in (0, 1]")
    return float(text)


def positive(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 1 or more")
    return int(text)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", help="folder, or dataset=NAME dataset.KEY=VALUE ...")
    parser.add_argument("--split", choices=("train", "test"), default="train", help="(train)")
    parser.add_argument("--fraction", type=share, nargs="+", default=[], help="shares, as 0.01 0.1")
    parser.add_argument("--per-class", type=positive, nargs="+", default=[], help="as 13 128")
    parser.add_argument("--seed", type=int, default=0, help="which images are chosen (0)")
    parser.add_argument("--nested", action="store_true", help="smaller ones lie in larger ones")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the files (here)")
    return parser.parse_args()


def main() -> None:
    """List, choose, write, print."""
    given = parsed()
    wanted = subsets(given)
    print("listing the images", file=sys.stderr, flush=True)
    source = data_set(given.data, given.split)
    print(f"{len(source)} images of {source.num_classes} classes")
    out = given.out.expanduser()
    assert source.labels is not None
    for name, places in choices(source, wanted, given.seed, given.nested):
        out.mkdir(parents=True, exist_ok=True)
        stem = f"{name}_seed{given.seed}"
        write(out / f"{stem}.txt", listing(source, places))
        write(out / f"{stem}.csv", table(source, places))
        counts = np.bincount(source.labels[places])
        print(
            f"{out / stem}.txt and .csv: {len(places)} images, {counts.min()} to {counts.max()} "
            "a class",
            flush=True,
        )


if __name__ == "__main__":
    run_script(main, stopped="stopped; the same command starts again")
