"""Small images, in folders and in tar shards, each known by its colour."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from unlabeled.data.index.building import Built, build
from unlabeled.data.index.inputs import plan
from unlabeled.data.index.reader import Index
from unlabeled.data.sampling.permutation import Permutation
from unlabeled.data.sources.photo_patches import PhotoPatches


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


def put_patches(folder: Path, *, images: int, shards: int) -> None:
    """Patches of photographs (16 x 16) in shards of equal size, `0.tar` and so on, with labels."""
    per_picture = -(-images // 20)
    source = PhotoPatches(
        PhotoPatches.Config(train_per_picture=per_picture, image_size=16), split="train"
    )
    order = Permutation(len(source), 0)(np.arange(images)).tolist()
    assert source.labels is not None
    for shard in range(shards):
        members = []
        for number in order[shard::shards]:
            buffer = io.BytesIO()
            Image.fromarray(source.image(number)).save(buffer, "PNG")
            members.append((f"{number:03d}.png", buffer.getvalue()))
            members.append((f"{number:03d}.cls", b"%d" % source.labels[number]))
        put_shard(folder / f"{shard}.tar", members)


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
