from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unlabeled.data.sources.base import Split
from unlabeled.data.sources.decoded_cache import DecodedCache
from unlabeled.data.sources.voc07 import CLASSES, Voc07
from unlabeled.errors import DataError

SPLITS = {"trainval": ["000005", "000007", "000009"], "test": ["000001", "000002"]}


def label(name: str, number: int) -> int:
    """1, 0 or -1, a function of image and class."""
    return (int(name) * 7 + number * number) % 3 - 1


def lay_out(root: Path) -> Path:
    """A VOC2007 of five images; the lists of classes are in another order than that of images."""
    (root / "JPEGImages").mkdir(parents=True)
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for split, names in SPLITS.items():
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for number, kind in enumerate(CLASSES):
            rows = [f"{name} {label(name, number):2d}\n" for name in reversed(names)]
            (lists / f"{kind}_{split}.txt").write_text("".join(rows))
        for name in names:
            colour = (int(name) * 20, 0, 0)
            Image.new("RGB", (6, 4), colour).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
    return root


def voc(root: Path, split: Split = "train", **fields: str) -> Voc07:
    return Voc07(Voc07.Config(root=str(root), **fields), split=split)


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_and_labels_are_those_of_the_lists(tmp_path: Path, split: Split) -> None:
    source = voc(lay_out(tmp_path), split)
    names = SPLITS["trainval" if split == "train" else "test"]
    assert [source.name(index) for index in range(len(source))] == names
    assert source.classes == CLASSES and len(CLASSES) == 20 and list(CLASSES) == sorted(CLASSES)
    assert source.labels is None and source.multi_labels is not None
    assert source.multi_labels.dtype == np.int8
    expected = [[label(name, number) for number in range(20)] for name in names]
    assert source.multi_labels.tolist() == expected
    assert set(source.multi_labels.ravel().tolist()) == {-1, 0, 1}
    for index, name in enumerate(names):
        assert abs(int(source.image(index)[0, 0, 0]) - int(name) * 20) < 8


def test_the_folder_around_is_fine_too_and_other_lists_can_be_chosen(tmp_path: Path) -> None:
    lay_out(tmp_path / "VOC2007")
    assert len(voc(tmp_path)) == 3
    assert len(voc(tmp_path, "train", train_list="test")) == 2


def test_labels_count_in_the_fingerprint_and_stay_in_a_cache(tmp_path: Path) -> None:
    lay_out(tmp_path / "a")
    lay_out(tmp_path / "b")
    first, second = voc(tmp_path / "a"), voc(tmp_path / "b")
    assert first.fingerprint() == second.fingerprint()
    assert first.multi_labels is not None and second.multi_labels is not None
    second.multi_labels[1, 3] *= -1
    second.multi_labels[1, 4] = 1 - abs(second.multi_labels[1, 4])
    assert first.fingerprint() != second.fingerprint()
    cache = DecodedCache(first, limit_gb=1)
    assert cache.multi_labels is first.multi_labels and cache.num_classes == 0


def test_missing_images_are_counted_and_named(tmp_path: Path) -> None:
    root = lay_out(tmp_path)
    (root / "JPEGImages" / "000007.jpg").unlink()
    with pytest.raises(DataError, match=r"lacks 1 of 3 images: 000007.jpg; .*two\s+archives"):
        voc(root)
    assert len(voc(root, "test")) == 2


def test_missing_lists_are_named(tmp_path: Path) -> None:
    root = lay_out(tmp_path)
    for path in (root / "ImageSets" / "Main").glob("*_test.txt"):
        path.unlink()
    with pytest.raises(DataError, match=r"lacks aeroplane_test.txt, .* and 15 more; expected"):
        voc(root, "test")
    assert len(voc(root)) == 3


def test_a_folder_that_is_no_voc_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist \(.*; expected below root: JPEGI"):
        voc(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no folder JPEGImages; expected below root: JPEGIma"):
        voc(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("cat_test.txt", "000001 1\n", "has no label 1, 0 or -1 for 000002"),
        ("cat_test.txt", "000001 1\n000002 5\n", "has no label 1, 0 or -1 for 000002"),
        ("cat_test.txt", "000001 1\n000002\n", "line 2: expected 2 words, got ['000002']"),
        ("test.txt", "\n", "names no images"),
    ],
)
def test_broken_lists_are_named(tmp_path: Path, file: str, text: str, message: str) -> None:
    root = lay_out(tmp_path)
    (root / "ImageSets" / "Main" / file).write_text(text)
    with pytest.raises(DataError, match=re.escape(message)):
        voc(root, "test")
