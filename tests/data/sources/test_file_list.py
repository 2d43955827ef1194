from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unlabeled.data.decode import BrokenImage
from unlabeled.data.sources.base import Split
from unlabeled.data.sources.file_list import FileList
from unlabeled.errors import DataError


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number, name in enumerate(("b.png", "a name.png", "c.png")):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / "images" / name)
    return tmp_path


def build(split: Split = "train", **fields: str) -> FileList:
    return FileList(FileList.Config(**fields), split=split)  # type: ignore[arg-type]


def reds(source: FileList) -> list[int]:
    return [int(source.image(index)[0, 0, 0]) for index in range(len(source))]


def test_the_order_of_the_list_is_kept_and_empty_lines_are_not(images: Path) -> None:
    (images / "list.txt").write_bytes(b"images/c.png\r\n\nimages/a name.png\nimages/c.png")
    source = build(train=str(images / "list.txt"))
    assert [source.name(i) for i in range(3)] == [
        "images/c.png",
        "images/a name.png",
        "images/c.png",
    ]
    assert reds(source) == [2, 1, 2] and source.labels is None


def test_paths_start_at_root_or_are_absolute(images: Path, tmp_path_factory: object) -> None:
    (images / "list.txt").write_text(f"b.png\n{images}/images/c.png\n")
    assert reds(build(train=str(images / "list.txt"), root=str(images / "images"))) == [0, 2]


@pytest.mark.parametrize("kind", ["U", "S"])
def test_arrays_of_strings(images: Path, kind: str) -> None:
    np.save(images / "list.npy", np.array(["images/b.png", "images/c.png"]).astype(kind))
    np.save(images / "labels.npy", np.array([7, 3]))
    source = build(train=str(images / "list.npy"), train_labels=str(images / "labels.npy"))
    assert reds(source) == [0, 2]
    assert source.classes == ("3", "7") and source.labels is not None
    assert source.labels.tolist() == [1, 0]


def test_classes_are_those_of_both_splits(images: Path) -> None:
    for name, text in {
        "train.txt": "images/b.png\nimages/c.png\n",
        "test.txt": "images/a name.png\n",
        "train_labels.txt": "wolf\nant\n",
        "test_labels.txt": "bee\n",
    }.items():
        (images / name).write_text(text)
    fields = {
        name: str(images / f"{name}.txt")
        for name in ("train", "test", "train_labels", "test_labels")
    }
    train, test = build(**fields), build("test", **fields)
    assert train.classes == test.classes == ("ant", "bee", "wolf")
    assert train.labels is not None and train.labels.tolist() == [2, 0]
    assert test.labels is not None and test.labels.tolist() == [1]


def test_missing_images_are_broken_when_used(images: Path) -> None:
    (images / "list.txt").write_text("nowhere.png\n\x00odd.png\n")
    source = build(train=str(images / "list.txt"))
    for index in range(2):
        with pytest.raises(BrokenImage):
            source.image(index)


@pytest.mark.parametrize(
    ("files", "fields", "message"),
    [
        ({}, {"train": "no.txt"}, "cannot read .*no.txt"),
        ({"a.txt": "\n\n"}, {"train": "a.txt"}, "names no images"),
        (
            {"a.txt": "x\ny\n", "l.txt": "1\n"},
            {"train": "a.txt", "train_labels": "l.txt"},
            "l.txt has 1 labels, .*a.txt has 2 paths",
        ),
        ({"a.npy": "no array"}, {"train": "a.npy"}, "cannot read .*a.npy"),
    ],
)
def test_faulty_lists_are_named(
    tmp_path: Path, files: dict[str, str], fields: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        build(**{field: str(tmp_path / name) for field, name in fields.items()})


def test_pickled_arrays_are_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array(["x", None], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"cannot read .*a\.npy"):
        build(train=str(tmp_path / "a.npy"))


def test_tables_of_numbers_are_no_list(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"got shape \(2, 2\) of float64"):
        build(train=str(tmp_path / "a.npy"))


def test_no_test_list(images: Path) -> None:
    (images / "list.txt").write_text("images/b.png\n")
    with pytest.raises(DataError, match="give a list of test images as test"):
        build("test", train=str(images / "list.txt"))
