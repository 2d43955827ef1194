"""Where the images of one shard lie, told from its headers each time it is needed: no index."""

from __future__ import annotations

import os

import numpy as np

from unlabeled.data.decode import BrokenImage
from unlabeled.data.index.fetching import Final
from unlabeled.data.index.layout import Kind
from unlabeled.data.index.open_file import OpenFile
from unlabeled.data.index.reader import Container, Entry
from unlabeled.data.index.records import Problem
from unlabeled.data.index.remote_files import RemoteFiles, is_remote
from unlabeled.data.index.shard_records import image_members
from unlabeled.data.sources.paths import PathList
from unlabeled.errors import DataError

# What every process finds alike, now and when the run is continued. Of another failure, such as a
# server that does not answer, one process may know and another not.
LASTING = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, Final)


class ShardTable:
    """The images of a shard in its order, and behind them what cannot be used, with the reason.

    So each of them has a place: of a shard that was cut the whole members come first and then one
    that is broken; a shard that is not there holds a broken one alone. About 50 bytes an image.
    DataError: the shard cannot be read now, but perhaps later.
    """

    def __init__(self, path: bytes, remote: RemoteFiles) -> None:
        found: list[Problem] = []
        members, size, mtime_ns = [], 0, 0
        name = os.fsdecode(path)
        try:
            file = remote.open(name) if is_remote(path) else OpenFile(path)
            status = os.fstat(file.number)
            size, mtime_ns = status.st_size, 0 if is_remote(path) else status.st_mtime_ns
            with file.stream() as stream:
                members = list(image_members(stream, name, found.append))
        except LASTING as error:
            reason = (error.strerror or str(error)).lower()
            found.append(Problem("unreadable shard", name, reason))
        except OSError as error:
            raise DataError(
                f"cannot read {name} ({error.strerror or error}): without it nobody knows where "
                "the next images are; the same command continues when it can be read"
            ) from error
        self.container = Container(path, Kind.SHARD, size, mtime_ns)
        self.broken = tuple((problem.name, problem.reason) for problem in found)
        self._names = PathList(os.fsdecode(member.name) for member in members)
        self._places = np.array([m[1:] for m in members], dtype=np.int64).reshape(-1, 3)

    def __len__(self) -> int:
        return len(self._names) + len(self.broken)

    def entry(self, place: int) -> Entry:
        """Where the image at a place in range(len) lies; BrokenImage if it cannot be used."""
        if place >= len(self._names):
            raise BrokenImage(self.broken[place - len(self._names)][1])
        offset, length, mark = self._places[place].tolist()
        return Entry(0, os.fsencode(self._names[place]), offset, length, mark)

    def name(self, place: int) -> str:
        """The shard's path and the member's name behind it."""
        if place >= len(self._names):
            return self.broken[place - len(self._names)][0]
        return f"{os.fsdecode(self.container.path)}/{self._names[place]}"
