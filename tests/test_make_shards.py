"""extra_scripts/make_shards.py, and what other programs find in the shards."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests_support.commands import ROOT, python
from tests_support.shards import labels, names, png, put_images, put_shard
from unlabeled.data.index.checking import check
from unlabeled.data.index.reader import Index
from unlabeled.data.sampling.permutation import Permutation
from unlabeled.data.sources.index import IndexedImages

SCRIPT = str(ROOT / "extra_scripts" / "make_shards.py")

pytestmark = pytest.mark.slow


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven images in two folders; the n-th has colour n."""
    put_images(tmp_path / "photos", *(f"{'ab'[n > 3]}/{n}.png" for n in range(7)))
    return tmp_path / "photos"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return python(SCRIPT, *map(str, arguments), "--workers", "1")


def reds(root: Path) -> list[int]:
    source = IndexedImages(IndexedImages.Config(root=str(root)), split="train")
    return [int(source.image(index)[0, 0, 0]) for index in range(len(source))]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tar")}


def test_shards_hold_the_files_as_they_are_with_labels_and_paths(
    photos: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out" / "shards"
    result = run(photos, target, "--samples", "3", "--labels", "folder", "--paths")
    assert result.returncode == 0, result.stderr
    assert "7 images in 3 shards, 0 left out" in result.stdout
    assert f"dataset=index dataset.root={target}/index" in result.stdout
    found: dict[str, bytes] = {}
    for shard in sorted(target.glob("*.tar")):
        with tarfile.open(shard) as archive:
            found |= {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    assert sorted(content(target)) == [f"shard-{n:06d}.tar" for n in range(3)]
    for n in range(7):
        assert found.pop(f"{n:09d}.png") == png(n)
        assert found.pop(f"{n:09d}.cls").decode() == "ab"[n > 3]
        path = json.loads(found.pop(f"{n:09d}.json"))["path"]
        assert Path(path).read_bytes() == png(n)
    assert not found
    assert reds(target / "index") == list(range(7))
    assert labels(Index(target / "index")) == list("aaaabbb")
    assert not list(check(Index(target / "index"), files=True))


def test_the_order_is_the_keyed_one_and_the_bytes_are_the_same_again(
    photos: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        assert run(photos, tmp_path / name, "--samples", "4", "--shuffle", "3").returncode == 0
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert reds(tmp_path / "one" / "index") == Permutation(7, 3)(np.arange(7)).tolist()


def test_a_stopped_run_goes_on_and_other_settings_are_not_mixed_in(
    photos: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    run(photos, target, "--samples", "3")
    whole = content(target)
    (target / "shard-000001.tar").unlink()
    stamp = (target / "shard-000000.tar").stat()
    for path in (target / "index").iterdir():
        path.unlink()
    (target / "index").rmdir()
    assert run(photos, target, "--samples", "3").returncode == 0
    assert content(target) == whole and (target / "shard-000000.tar").stat() == stamp
    result = run(photos, target, "--samples", "4")
    assert result.returncode == 2 and '"samples": 3' in result.stderr
    result = run(photos, photos, "--samples", "3")
    assert result.returncode == 2 and "holds other files" in result.stderr


def test_shards_can_be_packed_again_and_what_is_broken_is_left_out(
    photos: Path, tmp_path: Path
) -> None:
    put_shard(tmp_path / "old.tar", [(f"{n}.png", png(n)) for n in (50, 51, 52)])
    with (tmp_path / "old.tar").open("rb+") as shard:
        shard.truncate(2 * 1024 + 530)  # in the data of the third
    (photos / "a" / "1.png").write_bytes(b"")
    (photos / "a" / "0.png").unlink()
    (photos / "a" / "0.png").symlink_to(tmp_path / "nowhere.png")
    result = run(photos, tmp_path / "old.tar", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "7 images in 1 shards, 2 left out" in result.stdout
    assert "a/0.png: no such file" in result.stderr and "a/1.png: it has 0 bytes" in result.stderr
    assert f"damaged shard: {tmp_path}/old.tar: ends at byte 2578" in result.stderr
    assert sorted(reds(tmp_path / "out" / "index")) == [2, 3, 4, 5, 6, 50, 51]
    assert len(names(Index(tmp_path / "out" / "index"))) == 7
