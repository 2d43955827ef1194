"""Images of tar shards that nobody counted: a stream, read from its beginning on."""

from __future__ import annotations

import hashlib
import os
import threading
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.config.ranges import positive
from unlabeled.data.decode import decode_bytes
from unlabeled.data.index.opening import Opener, Roots
from unlabeled.data.index.remote_files import Fetching, RemoteFiles, is_remote
from unlabeled.data.index.shard_table import LASTING, ShardTable
from unlabeled.data.sampling.permutation import Permutation
from unlabeled.data.sources.base import Source, Split
from unlabeled.data.sources.file_list import read_lines
from unlabeled.errors import DataError
from unlabeled.registry import register

# Images whose places are held in memory; more than the windows that are read at a time.
HELD_IMAGES = 1 << 18
# How far from a broken image its replacement may stand.
NEIGHBOURS = 512


@register("dataset", "shards")
class Shards(Source):
    """Tar shards that are listed but not counted: image i is the i-th of the stream, from 0 on.

    Pass k over the shards takes them in the order of a keyed permutation of (seed, k), the images
    of each in its own order; behind the last shard the next pass begins. Which image i is follows
    from the list, the seed and the shards alone, so all laws of an index hold with `samples=` for
    a length and sampler=windowed or sequential: every image once a pass over all ranks and workers,
    whatever their number, and a run that was killed goes on where it was, with another number of
    ranks too. They hold as long as the shards and their list stay as they are; other names, another
    order or other sizes of local shards are told by the fingerprint when a run is continued.
    What is not counted has to be walked: every process reads the headers of all shards up to where
    it is, also when a run is continued (10^6 images take ten seconds; for a long run an index is
    cheaper), and remote shards are copied into the cache for it. There are no labels and no test
    split. What cannot be used has its place in the stream as a broken image: it is named, counted
    and replaced by one from nearby. DataError: there are no shards, or a pass over them has no
    image, or one cannot be read now; and whoever asks for the length while none was stated.
    """

    counted = False

    @dataclass(frozen=True, kw_only=True)
    class Config:
        root: str
        """Folder whose .tar files are the shards, or a text file that names one a line: an address,
        or a path that starts where the list lies."""
        seed: int = 0
        """What order the shards are taken in; the YAML gives the run's own."""

        cache: str | None = None
        """Folder for copies of remote shards; null: one in the system's temporary folder."""
        cache_gb: float = 20.0
        """Copies beyond it (10^9 bytes) are removed, the one used longest ago first."""
        stall_seconds: float = 60.0
        """A remote shard that brings nothing for so long is asked for again."""
        attempts: int = 5
        """How often a remote shard is asked for, ever more seconds apart, before it is broken."""

        def problems(self) -> Iterator[tuple[str, str]]:
            yield from positive(self, "cache_gb", "stall_seconds", "attempts")

    def __init__(self, config: Config, *, split: Split) -> None:
        if split == "test":
            raise DataError("shards that nobody counted have no test split; index them for one")
        self._config = config
        self._shards = listed(config.root)
        fetching = Fetching(config.cache, config.cache_gb, config.stall_seconds, config.attempts)
        self._remote = RemoteFiles(fetching)
        self._opener = Opener(b"/", Roots([], anywhere=True), fetching)
        self._taken: list[int] = []
        """The shards counted so far, pass after pass."""
        self._ends = [0]
        """How many images there are before the n-th of them."""
        self._growing, self._keeping = threading.Lock(), threading.Lock()
        self._tables: OrderedDict[int, ShardTable] = OrderedDict()

    def __len__(self) -> int:
        if self.stated_samples is None:
            raise DataError(
                f"nobody counted the images in the shards of {self._config.root}; index them with "
                "`unlabeled index build` and give dataset=index"
            )
        return self.stated_samples

    def image(self, index: int) -> np.ndarray:
        table, place = self._find(index)
        data = self._opener.member(table.container, table.entry(place))
        return decode_bytes(data, at_least=self.decode_at_least)

    def name(self, index: int) -> str:
        """The shard's path and the member's name behind it."""
        table, place = self._find(index)
        return table.name(place)

    def replacement(self, index: int, draw: int) -> int:
        """One of the neighbours, which are counted and at hand."""
        return max(0, index - NEIGHBOURS) + draw % (2 * NEIGHBOURS)

    def extent(self) -> str:
        return f"{len(self._shards)} shards"

    def fingerprint(self) -> str:
        """A short hash of the list of shards and the sizes of local ones, wherever they lie.

        Half a second for 10^5 of them. Nobody has looked at what is in them, so one that was
        written anew with as many bytes goes unseen; its time tells nothing, as a copy has another.
        """
        start = _common_folder(self._shards)
        digest = hashlib.sha256(str(len(self._shards)).encode())
        for path in self._shards:
            digest.update(b"%s\0%d\0" % (path[start:], _size(path)))
        return digest.hexdigest()[:16]

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened_again, (self._config, self.decode_at_least, self.stated_samples)

    def _find(self, index: int) -> tuple[ShardTable, int]:
        """The shard that holds image `index`, and the image's place in it."""
        if index < 0:
            raise IndexError(index)
        while self._ends[-1] <= index:
            with self._growing:
                if self._ends[-1] <= index:
                    self._count_next()
        number = bisect_right(self._ends, index) - 1
        return self._table(self._taken[number]), index - self._ends[number]

    def _count_next(self) -> None:
        """Count one more shard; DataError if all of a pass hold nothing."""
        counted, shards = len(self._taken), len(self._shards)
        if counted >= shards and self._ends[counted - shards] == self._ends[-1]:
            raise DataError(f"no images are in the {shards} shards of {self._config.root}")
        pass_number, place = divmod(counted, shards)
        order = Permutation(shards, self._config.seed, pass_number)
        shard = int(order(np.array([place]))[0])
        images = len(self._table(shard))
        self._taken.append(shard)
        self._ends.append(self._ends[-1] + images)  # last: other threads look here

    def _table(self, shard: int) -> ShardTable:
        """The places of a shard's images; those of the newest ones asked for are in memory."""
        with self._keeping:
            table = self._tables.get(shard)
            if table is not None:
                self._tables.move_to_end(shard)
                return table
        table = ShardTable(self._shards[shard], self._remote)
        with self._keeping:
            self._tables[shard] = table
            held = sum(map(len, self._tables.values()))
            while held > HELD_IMAGES and len(self._tables) > 1:
                held -= len(self._tables.popitem(last=False)[1])
        return table


def listed(root: str) -> list[bytes]:
    """The shards in a folder by name, or of a list in its order; DataError if there are none."""
    path = Path(os.path.abspath(Path(root).expanduser()))
    if path.is_dir():
        found = sorted(os.fsencode(shard) for shard in path.glob("*.tar"))
    elif path.suffix == ".tar":
        raise DataError(f"root: {root} is one shard; give its folder, or a list that names it")
    else:
        start = os.fsencode(path.parent)
        names = [os.fsencode(line) for line in read_lines(root)]
        found = [name if is_remote(name) else os.path.join(start, name) for name in names]
    if not found:
        raise DataError(f"root: {root} holds no shards: no file there ends in .tar")
    name, times = Counter(found).most_common(1)[0]
    if times > 1:
        raise DataError(f"root: {root} names {os.fsdecode(name)} {times} times")
    return found


def _common_folder(paths: list[bytes]) -> int:
    """How many bytes of every path are the folder that all of them lie in."""
    first, last = min(paths), max(paths)
    pairs = enumerate(zip(first, last, strict=False))
    same = next((place for place, (one, other) in pairs if one != other), len(first))
    return first.rfind(b"/", 0, same) + 1


def _size(path: bytes) -> int:
    """Bytes of a shard; -1 if it is far away or not there. DataError: nobody can tell now."""
    try:
        return -1 if is_remote(path) else os.stat(path).st_size
    except LASTING:
        return -1
    except OSError as error:
        raise DataError(f"cannot read {os.fsdecode(path)}: {error.strerror}") from error


def _opened_again(
    config: Shards.Config, decode_at_least: int | None, stated_samples: int | None
) -> Shards:
    source = Shards(config, split="train")
    source.decode_at_least, source.stated_samples = decode_at_least, stated_samples
    return source
