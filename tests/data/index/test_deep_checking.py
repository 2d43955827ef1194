from __future__ import annotations

from pathlib import Path

import pytest

from tests_support.shards import built, png, put_images, put_shard
from unlabeled.data.index import deep_checking
from unlabeled.data.index.deep_checking import check_images
from unlabeled.data.index.opening import Opener, Roots
from unlabeled.data.index.reader import Index


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Seven images of which a file and two members cannot be decoded."""
    put_images(tmp_path / "in", "a.png", "b.png", "c.png")
    (tmp_path / "in" / "b.png").write_bytes(png(5)[:40])
    members = [(f"{n}.png", b"no image" if n % 2 else png(n)) for n in range(4)]
    put_shard(tmp_path / "in" / "s.tar", members)
    built(tmp_path / "idx", tmp_path / "in")
    return Index(tmp_path / "idx")


@pytest.mark.parametrize("ahead", [1, 2, 100])
@pytest.mark.parametrize("workers", [1, 3])
def test_what_cannot_be_decoded_is_named_in_the_order_of_the_index(
    index: Index, ahead: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deep_checking, "AHEAD", ahead)
    opener = Opener(index.base, Roots([index.base], anywhere=False))
    found = [
        (problem.kind, problem.name.removeprefix(f"{index.path.parent}/in/"))
        for problem in check_images(index, opener, workers=workers)
    ]
    assert found == [("broken image", name) for name in ("b.png", "s.tar/1.png", "s.tar/3.png")]


def test_nothing_outside_of_the_roots_is_looked_at(index: Index, tmp_path: Path) -> None:
    opener = Opener(index.base, Roots([b"/elsewhere"], anywhere=False))
    reasons = [problem.reason for problem in check_images(index, opener, workers=1)]
    assert len(reasons) == 7 and all("outside of the allowed folders" in each for each in reasons)
