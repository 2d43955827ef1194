from __future__ import annotations

import numpy as np

from unlabeled.data.sources.queries import QuerySource, Relevance


class Named(QuerySource):
    def __init__(self, *relevance: Relevance) -> None:
        self.relevance = relevance

    def __len__(self) -> int:
        return 2

    def image(self, index: int) -> np.ndarray:
        raise NotImplementedError

    def name(self, index: int) -> str:
        return f"query {index}"


def query(easy: list[int], hard: list[int], junk: list[int]) -> Relevance:
    return Relevance(*(np.array(places, dtype=np.int64) for places in (easy, hard, junk)))


def test_the_fingerprint_knows_what_should_be_found_and_not_in_which_order() -> None:
    first = Named(query([1, 2], [3], []), query([], [], [4]))
    assert first.fingerprint() == Named(query([2, 1], [3], []), query([], [], [4])).fingerprint()
    others = [
        Named(query([1], [2, 3], []), query([], [], [4])),
        Named(query([1, 2], [3], []), query([], [4], [])),
        Named(query([1, 2], [3], [4]), query([], [], [])),
        Named(query([1, 2], [3], [])),
        Named(),
    ]
    assert len({each.fingerprint() for each in [first, *others]}) == 6
