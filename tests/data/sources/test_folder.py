from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unlabeled.data.decode import BrokenImage
from unlabeled.data.sources.base import Split
from unlabeled.data.sources.folder import Folder
from unlabeled.errors import DataError


def put(root: Path, *names: str) -> None:
    """Images of one colour, a different one for every name."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4), (number, 2 * number, 255 - number)).save(path)


def names(source: Folder) -> list[str]:
    return [source.name(index) for index in range(len(source))]


def folder(root: Path, split: Split = "train", **fields: object) -> Folder:
    return Folder(Folder.Config(root=str(root), **fields), split=split)  # type: ignore[arg-type]


def test_images_at_any_depth_in_sorted_order(tmp_path: Path) -> None:
    put(tmp_path, "b/2.png", "b/10.JPEG", "a/deep/er/x.jpg", "a.png", "z.webp")
    source = folder(tmp_path)
    assert names(source) == ["a/deep/er/x.jpg", "a.png", "b/10.JPEG", "b/2.png", "z.webp"]
    assert source.labels is None and source.num_classes == 0
    assert np.array_equal(source.image(3), np.broadcast_to(np.uint8([0, 0, 255]), (4, 5, 3)))


def test_the_first_subfolder_is_the_label(tmp_path: Path) -> None:
    put(tmp_path, "dog/1.png", "cat/2.png", "dog/brown/3.png", "cat/1.png")
    source = folder(tmp_path)
    assert source.classes == ("cat", "dog") and source.labels is not None
    assert source.labels.dtype == np.int64
    assert [source.classes[label] for label in source.labels] == ["cat", "cat", "dog", "dog"]
    assert folder(tmp_path, labels="none").labels is None


def test_one_image_beside_the_subfolders_means_no_labels(tmp_path: Path) -> None:
    put(tmp_path, "dog/1.png", "cat/2.png", "stray.png")
    assert folder(tmp_path).labels is None


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_train_and_val_or_test_are_the_splits(tmp_path: Path, held_out: str) -> None:
    put(tmp_path, "train/a/1.png", "train/b/1.png", f"{held_out}/a/2.png", f"{held_out}/b/3.png")
    assert names(folder(tmp_path)) == ["a/1.png", "b/1.png"]
    assert names(folder(tmp_path, "test")) == ["a/2.png", "b/3.png"]


def test_val_is_preferred_to_test_and_test_root_to_both(tmp_path: Path) -> None:
    put(tmp_path, "in/train/a/1.png", "in/test/a/2.png", "in/val/a/3.png", "out/a/4.png")
    assert names(folder(tmp_path / "in", "test")) == ["a/3.png"]
    assert names(folder(tmp_path / "in", "test", test_root=str(tmp_path / "out"))) == ["a/4.png"]


def test_a_class_named_train_is_no_split(tmp_path: Path) -> None:
    put(tmp_path, "train/1.png", "plane/2.png")
    assert folder(tmp_path).classes == ("plane", "train")


def test_both_splits_number_the_classes_alike(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png", "train/c/1.png", "val/b/1.png", "val/c/1.png")
    train, test = folder(tmp_path), folder(tmp_path, "test")
    assert train.classes == test.classes == ("a", "b", "c")
    assert train.labels is not None and train.labels.tolist() == [0, 2]
    assert test.labels is not None and test.labels.tolist() == [1, 2]


def test_empty_and_hidden_folders_are_no_classes(tmp_path: Path) -> None:
    put(tmp_path, "train/a/1.png", "val/a/1.png", "val/.cache/1.png", "train/a/.hidden.png")
    (tmp_path / "val" / "empty").mkdir()
    assert folder(tmp_path).classes == folder(tmp_path, "test").classes == ("a",)
    assert names(folder(tmp_path)) == ["a/1.png"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    put(tmp_path, "root/a/1.png", "elsewhere/2.png")
    (tmp_path / "root" / "a" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "a" / "self").symlink_to("self")
    (tmp_path / "root" / "b").symlink_to(tmp_path / "elsewhere")
    assert names(folder(tmp_path / "root")) == ["a/1.png", "b/2.png"]


def test_what_cannot_be_read_is_broken_when_it_is_used(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png")
    (tmp_path / "a" / "2.png").write_bytes(b"")
    (tmp_path / "a" / "3.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "a" / "4.png")  # opening it would wait for ever
    source = folder(tmp_path)
    assert names(source) == ["a/1.png", "a/2.png", "a/3.png"]
    for index in (1, 2):
        with pytest.raises(BrokenImage):
            source.image(index)


def test_names_that_are_no_utf8_are_kept(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff\xe4.png")
    assert folder(tmp_path).image(0).shape == (4, 5, 3)
    before = folder(tmp_path).fingerprint()
    os.rename(os.fsencode(tmp_path) + b"/\xff\xe4.png", os.fsencode(tmp_path) + b"/\xff\xe5.png")
    assert folder(tmp_path).fingerprint() != before


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "images/a.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(folder(Path("~/images"))) == 1


def test_fingerprints_tell_sets_apart_and_not_places(tmp_path: Path) -> None:
    put(tmp_path / "one", "a/1.png", "b/1.png")
    put(tmp_path / "two", "a/1.png", "b/1.png")
    put(tmp_path / "three", "a/1.png", "b/2.png")
    prints = [folder(tmp_path / name).fingerprint() for name in ("one", "two", "three")]
    assert prints[0] == prints[1] != prints[2]


def test_a_pickled_copy_reads_the_same_images(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "b/2.png")
    copy = pickle.loads(pickle.dumps(folder(tmp_path)))
    assert names(copy) == ["a/1.png", "b/2.png"]
    assert np.array_equal(copy.image(1), folder(tmp_path).image(1))


def test_a_missing_root_says_how_far_the_path_is_good(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"root: .*/no/such does not exist \(.* does\)"):
        folder(tmp_path / "no" / "such")


def test_a_file_is_no_root(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    with pytest.raises(DataError, match="is a file; a folder of images is expected"):
        folder(tmp_path / "a.png")


def test_no_images_says_what_was_seen_and_what_is_read(tmp_path: Path) -> None:
    for name in ("a.txt", "b.TXT", "sub/c.pdf", "sub/README"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    with pytest.raises(DataError) as caught:
        folder(tmp_path)
    message = str(caught.value)
    assert "2 .txt, 1 no extension, 1 .pdf" in message and ".jpg" in message and ".webp" in message


def test_no_test_split_says_how_to_give_one(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png")
    with pytest.raises(DataError, match=r"no test split.*test_root"):
        folder(tmp_path, "test")


def test_a_folder_that_vanishes_is_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a/1.png", "b/2.png")
    scandir = os.scandir

    def denied(path: str) -> object:
        if path.endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with caplog.at_level(logging.WARNING):
        assert names(folder(tmp_path)) == ["a/1.png"]
    assert f"{tmp_path}/b: Permission denied" in caplog.text
