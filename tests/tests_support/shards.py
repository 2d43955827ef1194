"""Small images, in folders and in tar shards, each known by its colour."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from unlabeled.data.index.building import Built, build
from unlabeled.data.index.inputs import plan
from unlabeled.data.index.reader import Index


def png(number: int) -> bytes:
    """An image of 4 x 4 pixels, all of them (number, 0, 0)."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def put_images(root: Path, *names: str) -> None:
    """Files below a folder, the n-th of them of colour n."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))


def put_shard(path: Path, members: Iterable[tuple[str, bytes]], kind: int = 1) -> None:
    """A tar archive of these members, in a format of `tarfile` (1: GNU)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as shard:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))


def built(
    out: Path,
    *inputs: Path,
    workers: int = 1,
    max_broken_share: float = 0.5,
    root: Path | None = None,
    folder_labels: bool = False,
    sizes: bool = False,
) -> Built:
    """`unlabeled index build` in this process."""
    units = plan(
        [str(each) for each in inputs],
        root=None if root is None else str(root),
        folder_labels=folder_labels,
        sizes=sizes,
    )
    return build(units, out, workers=workers, max_broken_share=max_broken_share)


def names(index: Index) -> list[str]:
    """What the entries are called, in their order."""
    return [index.entry(place).name.decode() for place in range(len(index))]


def labels(index: Index) -> Sequence[str | None]:
    """The names of the entries' classes."""
    numbers, classes = index.labels(), index.classes()
    assert numbers is not None
    return [classes[number] if number >= 0 else None for number in numbers]
