from __future__ import annotations

import pickle

import pytest

from unlabeled.data.sources.paths import PathList

PATHS = ["a.png", "", "deep/er/b.png", "\u00e4\u4e2d.png", "raw\udcff.png"]


def test_what_went_in_comes_out() -> None:
    paths = PathList(iter(PATHS))
    assert [paths[index] for index in range(len(paths))] == PATHS
    copy = pickle.loads(pickle.dumps(paths))
    assert [copy[index] for index in range(len(copy))] == PATHS


def test_empty() -> None:
    assert len(PathList([])) == 0


@pytest.mark.parametrize("index", [-1, 5])
def test_outside_is_an_error(index: int) -> None:
    with pytest.raises(IndexError):
        PathList(PATHS)[index]


def test_a_path_takes_its_bytes_and_eight_more() -> None:
    assert len(pickle.dumps(PathList("x" * 40 for _ in range(10_000)))) < 10_000 * 48 + 1000
