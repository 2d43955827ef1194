"""extra_scripts/make_filelist.py: lists that our data sets read back as they were."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests_support.scripts import script
from unlabeled.data.sources.csv import Csv
from unlabeled.data.sources.file_list import FileList
from unlabeled.data.sources.folder import Folder

NAMES = ["cat/1.jpg", "cat/a, b.PNG", "dog/deep/er/2.jpeg", "dog/\udcff\udcfe.jpg", "dog/'q\".webp"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Files called like images, among others."""
    folder = tmp_path / "photos"
    for name in [*NAMES, "cat/.hidden.jpg", "notes.txt", ".git/x.png"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def run(root: Path, target: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return script("make_filelist", root, target, *options)


def test_every_kind_of_list_is_the_folder(root: Path, tmp_path: Path) -> None:
    folder = Folder(Folder.Config(root=str(root)), split="train")
    expected = [folder.name(index) for index in range(len(folder))]
    assert folder.labels is not None and sorted(expected) == sorted(NAMES)
    for number, kind in enumerate(("txt", "npy")):
        target, labels = tmp_path / f"list.{kind}", tmp_path / f"labels{number}.{kind}"
        done = run(root, target, "--labels", str(labels))
        assert done.returncode == 0, done.stderr
        config = FileList.Config(train=str(target), train_labels=str(labels), root=str(root))
        listed = FileList(config, split="train")
        assert [listed.name(index) for index in range(len(listed))] == expected
        assert listed.labels is not None and listed.labels.tolist() == folder.labels.tolist()
        assert listed.classes == folder.classes == ("cat", "dog")
        assert f"dataset.train={target} dataset.root={root}" in done.stdout
    done = run(root, tmp_path / "list.csv", "--label")
    table = Csv(
        Csv.Config(path=str(tmp_path / "list.csv"), label_column="label", root=str(root)),
        split="train",
    )
    assert [table.name(index) for index in range(len(table))] == expected
    assert table.labels is not None and table.labels.tolist() == folder.labels.tolist()
    assert "5 images" in done.stdout


def test_links_are_followed_inside_the_folder_and_never_out_of_it(
    root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(b"")
    (root / "out").symlink_to(outside)
    (root / "cat" / "out.jpg").symlink_to(outside / "secret.jpg")
    (root / "up.d").symlink_to(tmp_path)
    (root / "again").symlink_to(root / "cat")
    (root / "cat" / "round").symlink_to(root)
    (root / "dog" / "gone.jpg").symlink_to(root / "nowhere.jpg")
    # A sibling whose name begins like the folder's is outside as well.
    (tmp_path / "photos2").mkdir()
    (tmp_path / "photos2" / "y.jpg").write_bytes(b"")
    (root / "sibling").symlink_to(tmp_path / "photos2")
    done = run(root, tmp_path / "list.npy")
    assert done.returncode == 0, done.stderr
    listed = FileList(FileList.Config(train=str(tmp_path / "list.npy")), split="train")
    found = [listed.name(index) for index in range(len(listed))]
    assert sorted(found) == sorted([*NAMES, "again/1.jpg", "again/a, b.PNG"])
    # cat/out.jpg is met in again/ once more.
    assert "5 links out of the folder left out" in done.stdout
    assert "1 links to nothing, pipes and the like left out" in done.stdout


@pytest.mark.parametrize(
    ("name", "refusing"), [("a\nb.jpg", ["txt"]), (" x.jpg", []), ("end.jpg\r.jpg", ["txt"])]
)
def test_a_name_that_a_list_would_change_is_an_error(
    tmp_path: Path, name: str, refusing: list[str]
) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    (root / name).write_bytes(b"")
    for kind in ("txt", "npy", "csv"):
        target = tmp_path / f"list.{kind}"
        done = run(root, target)
        if kind in refusing:
            assert done.returncode == 3 and f"cannot be kept in a .{kind} list" in done.stderr
            assert not target.exists()
        else:
            assert done.returncode == 0, done.stderr


def test_what_cannot_work_is_refused_and_nothing_is_replaced(root: Path, tmp_path: Path) -> None:
    kept = tmp_path / "list.txt"
    kept.write_text("mine")
    (root / "top.jpg").write_bytes(b"")
    (tmp_path / "nothing").mkdir()
    csv = tmp_path / "list.csv"
    for status, said, done in [
        (2, "is there already", run(root, kept)),
        (2, "a list is one of", run(root, tmp_path / "list.xlsx")),
        (2, "--label is for .csv", run(root, tmp_path / "new.txt", "--label")),
        (2, "see --label", run(root, csv, "--labels", str(tmp_path / "labels.txt"))),
        (3, "top.jpg lies in no subfolder", run(root, csv, "--label")),
        (3, "no images in", run(tmp_path / "nothing", csv)),
        (3, "is no folder of images", run(tmp_path / "gone", csv)),
    ]:
        assert done.returncode == status and said in done.stderr, done.stderr
    assert kept.read_text() == "mine" and sorted(os.listdir(tmp_path)) == [
        "list.txt",
        "nothing",
        "photos",
    ]
    assert run(root, kept, "--overwrite").returncode == 0 and "top.jpg" in kept.read_text(
        errors="surrogateescape"
    )
