from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unlabeled.data.sources.base import Split
from unlabeled.data.sources.copydays import Copydays
from unlabeled.errors import DataError

ORIGINALS = ["200000.jpg", "200100.jpg", "200200.jpg"]
STRONG = ["200001.jpg", "200002.jpg", "200201.jpg"]


def lay_out(root: Path) -> Path:
    for folder, names in (
        ("original", ORIGINALS),
        ("strong", STRONG),
        ("crops/50", ORIGINALS),
        ("others", ["x.png", "deep/y.jpg"]),
    ):
        for number, name in enumerate(names):
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4 + number, 4), (40 * number, 0, 0)).save(path)
    return root


def copydays(root: Path, split: Split = "test", **fields: Any) -> Copydays:
    return Copydays(Copydays.Config(root=str(root), **fields), split=split)


def found(source: Copydays) -> list[list[int]]:
    for each in source.relevance:
        assert not len(each.hard) and not len(each.junk)
    return [each.easy.tolist() for each in source.relevance]


def test_copies_should_find_their_originals(tmp_path: Path) -> None:
    lay_out(tmp_path)
    originals, copies = copydays(tmp_path, "train"), copydays(tmp_path)
    assert [originals.name(index) for index in range(len(originals))] == ORIGINALS
    assert originals.relevance == () and originals.image(2).shape == (4, 6, 3)
    assert [copies.name(index) for index in range(len(copies))] == STRONG
    assert found(copies) == [[0], [0], [2]]
    assert found(copydays(tmp_path, queries="crops/50")) == [[0], [1], [2]]


def test_distractors_stand_behind_the_originals(tmp_path: Path) -> None:
    lay_out(tmp_path)
    folder = str(tmp_path / "others")
    database = copydays(tmp_path, "train", distractors=folder)
    names = [database.name(index) for index in range(len(database))]
    assert names == [*ORIGINALS, "deep/y.jpg", "x.png"]
    assert [database.image(index).shape[1] for index in range(5)] == [4, 5, 6, 5, 4]
    assert found(copydays(tmp_path, distractors=folder)) == [[0], [0], [2]]
    assert database.fingerprint() != copydays(tmp_path, "train").fingerprint()


def test_too_few_originals_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lay_out(tmp_path)
    with caplog.at_level(logging.WARNING):
        copydays(tmp_path, "train")
    assert "has 3 of 157 pictures" in caplog.text


def test_missing_folders_and_originals_are_named(tmp_path: Path) -> None:
    message = r"nowhere does not exist \(.* does\); expected below root: original/\*"
    with pytest.raises(DataError, match=message):
        copydays(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"original is missing; expected below root: original/"):
        copydays(tmp_path)
    lay_out(tmp_path)
    with pytest.raises(DataError, match="jpegqual/3 is missing"):
        copydays(tmp_path, queries="jpegqual/3")
    (tmp_path / "original" / "200200.jpg").unlink()
    with pytest.raises(DataError, match=r"original lacks 2002\*.jpg, the original of 200201.jpg"):
        copydays(tmp_path)
    for name in STRONG:
        (tmp_path / "strong" / name).rename(tmp_path / "strong" / f"{name}.part")
    with pytest.raises(DataError, match=r"strong has no \.jpg files"):
        copydays(tmp_path)
