"""Images of an index, which `unlabeled index build` makes: any number, in files or in shards."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from unlabeled.config.ranges import positive
from unlabeled.data.decode import decode_bytes, decode_file
from unlabeled.data.index.layout import CLASSES, LABELS, Kind
from unlabeled.data.index.opening import Opener, Roots, container_problem
from unlabeled.data.index.reader import Index
from unlabeled.data.index.remote_files import Fetching, is_remote
from unlabeled.data.sources.base import Source, Split
from unlabeled.errors import DataError
from unlabeled.registry import register

# Containers whose place is looked at before training; a billion images lie in 100,000 shards.
CONTAINERS_LOOKED_AT = 1000


@register("dataset", "index")
class IndexedImages(Source):
    """The entries of an index, in its order; members of tar shards are read by byte range.

    Opening takes milliseconds and the same memory for any number of images: records, names and
    labels stay on the disk. Labels are there if every entry has one. Only files below `roots` and
    below the folder that the index lies in are opened, wherever names and links lead. Remote shards
    are copied as a whole into a bounded cache that all processes of a machine share, or read by
    byte range. A file that
    vanished, or a shard that was cut or written anew, gives broken images, which are named, counted
    and replaced like others. DataError: there is no index, it is damaged, or all that it names lies
    elsewhere.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        root: str
        """Index of the training images: the folder that holds index.json; ~ is expanded."""
        test_root: str | None = None
        """Index of the test images."""
        roots: list[str] = field(default_factory=list)
        """Folders, or addresses like https://host/images, below which files may be opened, beside
        the folder that the index lies in."""
        anywhere: bool = False
        """Whether any file that the index names may be opened: for an index of your own."""

        remote: Literal["copy", "ranges"] = "copy"
        """How remote shards are read: copied as a whole into the cache, or an image at a time by
        byte range, for orders that jump over more shards than the cache holds."""
        cache: str | None = None
        """Folder for copies of remote shards; null: one in the system's temporary folder."""
        cache_gb: float = 20.0
        """Copies beyond it (10^9 bytes) are removed, the one used longest ago first."""
        stall_seconds: float = 60.0
        """A remote file that brings nothing for so long is asked for again."""
        attempts: int = 5
        """How often a remote file is asked for, ever more seconds apart, before it is broken."""

        def problems(self) -> Iterator[tuple[str, str]]:
            if self.anywhere and self.roots:
                yield "roots", "must be empty where anywhere is true, which allows every folder"
            yield from positive(self, "cache_gb", "stall_seconds", "attempts")

    def __init__(self, config: Config, *, split: Split) -> None:
        path = config.root if split == "train" else config.test_root
        if path is None:
            raise DataError(
                "there is no test split: give the index of the test images as test_root"
            )
        self._config, self._split = config, split
        self.index = Index(path)
        folders = [os.fsencode(os.path.expanduser(folder)) for folder in config.roots]
        roots = Roots([self.index.base, *folders], anywhere=config.anywhere)
        self._check_containers(roots)
        fetching = Fetching(
            *(config.cache, config.cache_gb, config.stall_seconds, config.attempts),
            ranges=config.remote == "ranges",
        )
        self.opener = Opener(self.index.base, roots, fetching)
        if self.index.header.labelled == len(self.index):
            self.labels = self.index.labels()
            self.classes = self.index.classes()

    def __len__(self) -> int:
        return len(self.index)

    def image(self, index: int) -> np.ndarray:
        entry = self.index.entry(index)
        container = self.index.container(entry.container)
        if container.kind == Kind.FOLDER and not is_remote(container.path):
            path = self.opener.file_path(container, entry)
            return decode_file(os.fsdecode(path), at_least=self.decode_at_least)
        return decode_bytes(self.opener.content(container, entry), at_least=self.decode_at_least)

    def name(self, index: int) -> str:
        """The path, or the shard's path and the member's name behind it."""
        entry = self.index.entry(index)
        container = self.index.container(entry.container)
        return os.fsdecode(container.path.rstrip(b"/") + b"/" + entry.name)

    def fingerprint(self) -> str:
        """A short hash of names and labels, wherever the images lie and whenever they were indexed.

        Labels enter by the checksum that their file has in the header.
        """
        digest = hashlib.sha256(str(len(self)).encode())
        for place in np.linspace(0, len(self) - 1, num=min(len(self), 1000), dtype=np.int64):
            digest.update(self.index.entry(int(place)).name)
        for name in (LABELS, CLASSES) if self.labels is not None else ():
            digest.update(self.index.header.files[name].sha256.encode())
        return digest.hexdigest()[:16]

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process goes where the index is: neither open files nor a copy of the labels.
        return _opened_again, (self._config, self._split, self.decode_at_least)

    def _check_containers(self, roots: Roots) -> None:
        """DataError if nothing of what the index names may be opened."""
        outside = []
        for number in range(min(self.index.header.containers, CONTAINERS_LOOKED_AT)):
            found = container_problem(self.index.container(number), self.index.base, roots)
            if found is None:
                return
            outside.append(found)
        raise DataError(
            f"{self.index.path} names images in {outside[0]}, outside of the folder that it lies "
            "in; give folders that may be read as dataset.roots=[FOLDER], or dataset.anywhere=true "
            "for an index of your own"
        )


def _opened_again(
    config: IndexedImages.Config, split: Split, decode_at_least: int | None
) -> IndexedImages:
    source = IndexedImages(config, split=split)
    source.decode_at_least = decode_at_least
    return source
