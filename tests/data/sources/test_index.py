from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests_support.loading import contents, steps_of
from tests_support.shards import built, png, put_images, put_shard
from unlabeled.data.decode import BrokenImage
from unlabeled.data.sources.base import Split
from unlabeled.data.sources.folder import Folder
from unlabeled.data.sources.index import IndexedImages
from unlabeled.engine.data import BrokenImages
from unlabeled.errors import DataError

COLOURS = 24


def opened(root: Path, split: Split = "train", **fields: object) -> IndexedImages:
    config = IndexedImages.Config(root=str(root), **fields)  # type: ignore[arg-type]
    return IndexedImages(config, split=split)


def reds(source: IndexedImages) -> list[int]:
    return [int(source.image(index)[0, 0, 0]) for index in range(len(source))]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """24 labelled images in 3 shards."""
    for shard in range(3):
        members = []
        for number in range(8 * shard, 8 * shard + 8):
            members += [(f"{number:03d}.png", png(number)), (f"{number:03d}.cls", b"%d" % shard)]
        put_shard(tmp_path / "in" / f"{shard}.tar", members)
    built(tmp_path / "idx", tmp_path / "in")
    return tmp_path / "in"


def test_a_folder_through_an_index_is_the_folder(tmp_path: Path) -> None:
    put_images(tmp_path / "in", *(f"{n % 3}/{n}.png" for n in range(7)))
    built(tmp_path / "idx", tmp_path / "in", folder_labels=True)
    source, folder = (
        opened(tmp_path / "idx"),
        Folder(Folder.Config(root=str(tmp_path / "in")), split="train"),
    )
    assert len(source) == len(folder) == 7 and source.classes == folder.classes
    assert np.array_equal(source.labels, folder.labels)  # type: ignore[arg-type]
    for index in range(7):
        assert source.name(index) == f"in/{folder.name(index)}"
        assert np.array_equal(source.image(index), folder.image(index))


def test_members_are_decoded_with_their_labels(shards: Path, tmp_path: Path) -> None:
    source = opened(tmp_path / "idx")
    assert reds(source) == list(range(COLOURS))
    assert source.labels is not None and source.labels.tolist() == [n // 8 for n in range(COLOURS)]
    assert source.name(9) == "in/1.tar/009.png"
    again = pickle.loads(pickle.dumps(source))
    assert reds(again) == reds(source) and again.fingerprint() == source.fingerprint()


def test_labels_are_there_only_if_every_image_has_one(shards: Path, tmp_path: Path) -> None:
    put_shard(shards / "3.tar", [("a.png", png(99))])
    built(tmp_path / "more", shards)
    source = opened(tmp_path / "more")
    assert source.labels is None and source.num_classes == 0
    assert source.fingerprint() != opened(tmp_path / "idx").fingerprint()


def test_the_fingerprint_is_of_names_and_labels_and_of_nothing_else(tmp_path: Path) -> None:
    found = []
    for number, labels in enumerate(("ab", "ab", "ba")):
        members = [("1.png", png(1)), ("1.cls", labels[0].encode())]
        members += [("2.png", png(number)), ("2.cls", labels[1].encode())]
        put_shard(tmp_path / str(number) / "s.tar", members)
        built(tmp_path / f"idx{number}", tmp_path / str(number))
        found.append(opened(tmp_path / f"idx{number}").fingerprint())
    assert found[0] == found[1] != found[2]


def test_the_test_split_is_an_index_of_its_own(shards: Path, tmp_path: Path) -> None:
    built(tmp_path / "idx2", shards / "1.tar")
    source = opened(tmp_path / "idx", "test", test_root=str(tmp_path / "idx2"))
    assert reds(source) == list(range(8, 16))
    with pytest.raises(DataError, match="give the index of the test images as test_root"):
        opened(tmp_path / "idx", "test")


def test_images_elsewhere_need_leave(shards: Path, tmp_path: Path) -> None:
    built(tmp_path / "other" / "idx", shards)
    with pytest.raises(
        DataError, match=r"names images in .*/in/0.tar, outside of .* dataset.roots"
    ):
        opened(tmp_path / "other" / "idx")
    assert reds(opened(tmp_path / "other" / "idx", roots=[str(shards)])) == list(range(COLOURS))
    assert reds(opened(tmp_path / "other" / "idx", anywhere=True)) == list(range(COLOURS))
    config = IndexedImages.Config(root="x", roots=["y"], anywhere=True)
    assert [key for key, _ in config.problems()] == ["roots"]


def test_what_is_broken_is_named_counted_and_replaced_by_the_loader(tmp_path: Path) -> None:
    """Of eight members one is no image and two are behind the cut."""
    shard = tmp_path / "s.tar"
    put_shard(shard, [(f"{n}.png", b"no image" if n == 2 else png(n)) for n in range(8)])
    built(tmp_path / "idx", shard)
    source = opened(tmp_path / "idx")
    shard.write_bytes(shard.read_bytes()[: source.index.entry(6).offset])
    batch = steps_of(source, batch_size=8, steps_per_epoch=1)[(0, 0)]
    assert dict(batch.broken) == {
        "s.tar/2.png": "not an image in a known format",
        "s.tar/6.png": "the shard ends before it",
        "s.tar/7.png": "the shard ends before it",
    }
    assert set(batch.indices.tolist()) == {0, 1, 3, 4, 5} and len(batch.indices) == 8
    BrokenImages(8, max_share=3 / 8).note(batch)
    with pytest.raises(DataError, match="3 of 8 images could not be decoded"):
        BrokenImages(8, max_share=2 / 8).note(batch)


def test_an_old_index_gives_errors_and_no_other_images(shards: Path, tmp_path: Path) -> None:
    """Shards written anew in another order: whatever still decodes is what was indexed."""
    members = [(f"{n:03d}.png", png(n)) for n in reversed(range(8, 16))]
    put_shard(shards / "1.tar", members)
    (shards / "2.tar").unlink()
    source = opened(tmp_path / "idx")
    for index in range(COLOURS):
        try:
            assert source.image(index)[0, 0, 0] == index
        except BrokenImage:
            assert index >= 8


@pytest.mark.slow
def test_the_loader_gives_the_same_batches_with_any_crew(shards: Path, tmp_path: Path) -> None:
    steps = steps_of(opened(tmp_path / "idx"), steps_per_epoch=2)
    alone = contents(steps, range(4))
    assert contents(steps, range(4), 2, "threads") == alone
    assert contents(steps, range(4), 2, "processes") == alone


def test_large_photographs_are_decoded_smaller_where_training_asks_in_files_and_in_shards(
    tmp_path: Path,
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (1200, 1100), (9, 9, 9)).save(buffer, "JPEG")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(buffer.getvalue())
    put_shard(tmp_path / "in" / "s.tar", [("b.jpg", buffer.getvalue())])
    built(tmp_path / "idx", tmp_path / "in")
    source = opened(tmp_path / "idx")
    assert [source.image(index).shape[:2] for index in (0, 1)] == [(1100, 1200)] * 2
    source.decode_at_least = 200
    for each in (source, pickle.loads(pickle.dumps(source))):
        assert [each.image(index).shape[:2] for index in (0, 1)] == [(275, 300)] * 2


def test_one_folder_within_the_roots_is_enough_to_begin(tmp_path: Path) -> None:
    put_shard(tmp_path / "a" / "0.tar", [("0.png", png(1))])
    put_shard(tmp_path / "home" / "1.tar", [("0.png", png(2))])
    built(tmp_path / "home" / "idx", tmp_path / "a" / "0.tar", tmp_path / "home" / "1.tar")
    source = opened(tmp_path / "home" / "idx")
    with pytest.raises(BrokenImage, match="outside of the allowed folders"):
        source.image(0)
    assert source.image(1)[0, 0, 0] == 2


def test_the_fingerprint_knows_what_classes_are_called(tmp_path: Path) -> None:
    found = set()
    for names in (("cat", "dog"), ("cat", "fox")):
        members = []
        for number, name in enumerate(names):
            members += [(f"{number}.png", png(number)), (f"{number}.cls", name.encode())]
        put_shard(tmp_path / names[1] / "s.tar", members)
        built(tmp_path / names[1] / "idx", tmp_path / names[1] / "s.tar")
        found.add(opened(tmp_path / names[1] / "idx").fingerprint())
    assert len(found) == 2
