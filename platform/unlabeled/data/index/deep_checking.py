"""Whether every image of an index can be read and decoded: what training would find, beforehand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from unlabeled.data.decode import BrokenImage, decode_bytes
from unlabeled.data.index.opening import Opener
from unlabeled.data.index.reader import Index
from unlabeled.data.index.records import Problem

# Entries that are in the hands of the threads at a time.
AHEAD = 1024


def check_images(index: Index, opener: Opener, *, workers: int) -> Iterator[Problem]:
    """The images that cannot be used, in the order of the index.

    Each is read as training reads it, so the tar header before a member has to be the one that was
    indexed, and is decoded as a whole. `workers` threads share the work; memory is bounded.
    """

    def found(place: int) -> Problem | None:
        entry = index.entry(place)
        container = index.container(entry.container)
        try:
            decode_bytes(opener.content(container, entry))
        except BrokenImage as error:
            name = container.located(index.base, entry.name)
            return Problem("broken image", os.fsdecode(name), str(error))
        return None

    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(index), AHEAD):
            places = range(first, min(first + AHEAD, len(index)))
            yield from (problem for problem in pool.map(found, places) if problem)
