from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests_support.shards import built, labels, names, png, put_images, put_shard
from unlabeled.data.index import shuffling
from unlabeled.data.index.checking import check
from unlabeled.data.index.reader import Index
from unlabeled.data.index.shuffling import shuffle
from unlabeled.data.sampling.permutation import Permutation
from unlabeled.errors import ConfigError


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_a_shuffled_index_holds_the_same_entries_in_the_keyed_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(shuffling, "PLACES_AT_ONCE", at_once)
    put_images(tmp_path / "in", *(f"{n % 3}/{n}.png" for n in range(20)))
    put_shard(tmp_path / "in" / "s.tar", [(f"m{n}.png", png(n)) for n in range(10)])
    built(tmp_path / "idx", tmp_path / "in", folder_labels=True)
    shuffle(Index(tmp_path / "idx"), tmp_path / "shuffled", seed=5)
    before, after = Index(tmp_path / "idx"), Index(tmp_path / "shuffled")
    order = Permutation(30, 5)(np.arange(30)).tolist()
    assert names(after) == [names(before)[place] for place in order]
    assert labels(after) == [labels(before)[place] for place in order]
    assert not list(check(after, files=True))
    with pytest.raises(ConfigError, match="is there already"):
        shuffle(before, tmp_path / "shuffled", seed=6)


def test_shuffled_beside_its_images_it_travels_with_them_also_by_a_link(tmp_path: Path) -> None:
    put_images(tmp_path / "disk" / "in", "a.png")
    built(tmp_path / "elsewhere" / "idx", tmp_path / "disk" / "in")
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    shuffle(Index(tmp_path / "elsewhere" / "idx"), tmp_path / "home" / "shuffled", seed=0)
    assert Index(tmp_path / "disk" / "shuffled").container(0).path == b"in"
