"""Pack images into tar shards by the WebDataset convention, and index them.

    python extra_scripts/make_shards.py photographs shards --labels folder --shuffle 0
    python extra_scripts/make_shards.py list.txt shards --samples 10000 --paths
    unlabeled pretrain dataset=index dataset.root=shards/index sampler=block_shuffled

Inputs are those of `unlabeled index build`. Files are copied byte by byte, not decoded: sample 17
is 000000017.jpg, with its class in 000000017.cls where there are labels, and with --paths the path
it had in 000000017.json. The same inputs give the same bytes. A run that was stopped goes on where
it was: shards that are there are complete. Files that cannot be read are named, counted and left
out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from unlabeled.data.decode import BrokenImage
from unlabeled.data.index.building import build
from unlabeled.data.index.inputs import plan
from unlabeled.data.index.layout import NO_LABEL
from unlabeled.data.index.opening import Opener, Roots
from unlabeled.data.index.reader import Index
from unlabeled.data.index.workers import in_processes
from unlabeled.data.sampling.permutation import Permutation
from unlabeled.data.sources.folder import EXTENSIONS
from unlabeled.data.whole_files import write_file
from unlabeled.errors import ConfigError, UserError
from unlabeled.printable import printable

SETTINGS, SOURCES, INDEX = ".make_shards.json", ".sources", "index"


@dataclass(frozen=True)
class Packing:
    """What makes the shards of two runs the same; kept beside them."""

    samples: int
    """Images per shard."""
    shuffle: int | None
    """Seed of the order; null: by path."""
    paths: bool
    """Whether a .json says the path that an image had."""

    def shards(self, images: int) -> int:
        """How many there will be."""
        return -(-images // self.samples)

    def places(self, images: int, shard: int) -> Iterator[tuple[int, int]]:
        """(number of the sample, place in the index of the inputs) of a shard's images."""
        first = shard * self.samples
        numbers = np.arange(first, min(first + self.samples, images))
        order = numbers if self.shuffle is None else Permutation(images, self.shuffle)(numbers)
        yield from zip(map(int, numbers), map(int, order), strict=True)


def write_shard(target: Path, number: int, packing: Packing) -> None:
    """One shard, as a whole or not at all; what has to be left out is said on stderr."""
    source = Index(target / SOURCES)
    labels, classes = source.labels(), source.classes()
    opener = Opener(source.base, Roots([], anywhere=True))

    def write(file: BinaryIO) -> None:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as shard:
            for sample, place in packing.places(len(source), number):
                name, data = image(source, opener, place)
                if data is None:
                    continue
                extension = os.path.splitext(name)[1].lower()
                # Lists may name images otherwise; what reads them goes by their content.
                kind = extension if extension in EXTENSIONS else ".jpg"
                add(shard, f"{sample:09d}{kind}", data)
                if labels is not None and labels[place] != NO_LABEL:
                    add(shard, f"{sample:09d}.cls", os.fsencode(classes[labels[place]]))
                if packing.paths:
                    add(shard, f"{sample:09d}.json", json.dumps({"path": name}).encode())

    write_file(shard_path(target, number), write)


def image(source: Index, opener: Opener, place: int) -> tuple[str, bytes | None]:
    """The path and the bytes of an image; None, and a line on stderr, if it cannot be read."""
    entry = source.entry(place)
    container = source.container(entry.container)
    name = os.fsdecode(container.located(source.base, entry.name))
    try:
        return name, opener.content(container, entry)
    except BrokenImage as error:
        print(printable(f"left out: {name}: {error}"), file=sys.stderr, flush=True)
        return name, None


def add(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    """A member without owner and date, so that equal images make equal shards."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    shard.addfile(member, BytesIO(data))


def shard_path(target: Path, number: int) -> Path:
    """Where a shard lies."""
    return target / f"shard-{number:06d}.tar"


def check_settings(target: Path, packing: Packing) -> None:
    """ConfigError unless the target is empty, or was begun with these settings."""
    settings, text = target / SETTINGS, json.dumps(asdict(packing))
    if settings.exists():
        if settings.read_text() != text:
            raise ConfigError(
                f"{target} was begun with {settings.read_text()}, not with {text}; take the same "
                "settings or another folder"
            )
    elif target.exists() and any(target.iterdir()):
        raise ConfigError(f"{target} holds other files; give an empty or a new folder")
    write_file(settings, lambda file: file.write(text.encode()))


def whole(text: str) -> int:
    """An argparse type: a number from 1 on."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return int(text)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument("inputs", nargs="+", help="folders, lists, tables, shards or indexes")
    parser.add_argument("target", type=Path, help="folder to make or to go on with")
    parser.add_argument("--samples", type=whole, default=1000, help="images per shard (1000)")
    parser.add_argument("--shuffle", type=int, metavar="SEED", help="a random order; else by path")
    parser.add_argument("--labels", choices=("none", "folder"), default="none")
    parser.add_argument("--paths", action="store_true", help="a .json with each image's path")
    parser.add_argument("--root", help="where relative paths of lists start")
    parser.add_argument("--workers", type=whole, default=cores, help="processes (all cores)")
    return parser.parse_args()


def main() -> None:
    """Index the inputs, pack them, index the shards."""
    given = parsed()
    packing = Packing(given.samples, given.shuffle, given.paths)
    target: Path = given.target.expanduser()
    labels = given.labels == "folder"
    units = plan(given.inputs, root=given.root, folder_labels=labels, sizes=False)
    check_settings(target, packing)
    found = build(units, target / SOURCES, workers=given.workers, max_broken_share=1.0)
    for problem in found.notes.named:
        print(printable(f"{problem.kind}: {problem.name}: {problem.reason}"), file=sys.stderr)
    images = found.header.entries
    missing = [n for n in range(packing.shards(images)) if not shard_path(target, n).exists()]
    tasks = [(target, number, packing) for number in missing]
    for done in in_processes(write_shard, tasks, given.workers):
        if sys.stderr.isatty():
            print(f"{done}/{len(missing)} shards", end="\r", file=sys.stderr, flush=True)
    shards = plan([str(target)], root=None, folder_labels=False, sizes=False)
    packed = build(shards, target / INDEX, workers=given.workers).header
    print(
        f"{packed.entries} images in {packing.shards(images)} shards, "
        f"{images - packed.entries} left out\ndataset=index dataset.root={target / INDEX}"
    )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except OSError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")
