"""extra_scripts/prepare_*.py on small folders of the real layouts: what is missing is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests_support import dataset_trees
from tests_support.commands import ROOT
from tests_support.dataset_trees import picture, put
from tests_support.scripts import script
from unlabeled.data.sources.csv import Csv


def contents(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# An image of each, and what is said of a tree with so few.
LAYOUTS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "imagenet": (
        dataset_trees.imagenet,
        "val/n01440764/0.JPEG",
        "val: images: 4, published are 50,000",
    ),
    "inat18": (
        dataset_trees.inat18,
        "train_val2018/Plantae/4/a, 4.jpg",
        "images: 3, published are 437,513",
    ),
    "places205": (
        dataset_trees.places205,
        "a/abbey/val 1.jpg",
        "images: 3, published are 2,448,873",
    ),
    "voc": (
        dataset_trees.voc,
        "VOC2012/JPEGImages/000001.jpg",
        "VOC2007 test: 1, published are 4,952",
    ),
    "coco": (
        dataset_trees.coco,
        "val2017/000000000001.jpg",
        "val2017: images: 3, published are 5,000",
    ),
    "revisited": (
        dataset_trees.revisited,
        "rparis6k/jpg/a_1.jpg",
        "rparis6k: database: 2, published are 6,322",
    ),
    "copydays": (
        dataset_trees.copydays,
        "strong/200201.jpg",
        "strong: pictures: 3, published are 229",
    ),
    "davis": (
        dataset_trees.davis,
        "JPEGImages/480p/bike/00001.jpg",
        "train: videos: 1, published are 60",
    ),
    "folder": (dataset_trees.folder, "val/bee/1.jpg", "classes: 2, expected are 3"),
}
UNLISTED = {"imagenet", "copydays", "folder"}
"""Where no list says which files there are."""


def few(name: str) -> list[str]:
    return [] if name == "folder" else ["--part"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_there_is_checked_and_what_is_not_is_named(name: str, tmp_path: Path) -> None:
    make, lost, counted = LAYOUTS[name]
    root = tmp_path / "data"
    nothing = script(f"prepare_{name}", root)
    assert nothing.returncode == 3 and not root.exists()
    assert "expected:\n" in nothing.stderr or "does not exist" in nothing.stderr
    make(root)
    before = contents(root)
    whole = script(f"prepare_{name}", root, *few(name))
    assert whole.returncode == 0 and whole.stdout.startswith("complete: "), whole.stderr
    for table in (root / "inat18.csv", root / "places205.csv"):
        table.unlink(missing_ok=True)
    short = script(f"prepare_{name}", root, *(["--classes", "3"] if name == "folder" else []))
    assert short.returncode == 3 and counted in short.stderr, short.stderr
    for content, said in (
        (b"", "empty"),
        (picture()[:200], "damaged or cut short"),
        (picture()[:-2], "damaged or cut short"),
    ):
        (root / lost).write_bytes(content)
        broken = script(f"prepare_{name}", root, *few(name))
        assert broken.returncode == 3 and f" {said}: " in broken.stderr, broken.stderr
        assert Path(lost).name in broken.stderr and "1 of " in broken.stderr
    (root / lost).unlink()
    if name not in UNLISTED:
        gone = script(f"prepare_{name}", root, *few(name))
        assert gone.returncode == 3 and " missing: " in gone.stderr, gone.stderr
        assert Path(lost).name in gone.stderr
    (root / lost).write_bytes(before[str(root / lost)])
    assert contents(root) == before  # nothing is written where something is wrong


@pytest.mark.parametrize(
    ("name", "table", "labels"),
    [("inat18", "inat18.csv", [5, 4, 3]), ("places205", "places205.csv", [0, 1, 2])],
)
def test_the_table_is_a_data_set(name: str, table: str, labels: list[int], tmp_path: Path) -> None:
    LAYOUTS[name][0](tmp_path)
    done = script(f"prepare_{name}", tmp_path, "--part")
    assert done.returncode == 0 and f"dataset.path={tmp_path / table}" in done.stdout, done.stderr
    config = Csv.Config(
        path=str(tmp_path / table), root=str(tmp_path), label_column="label", split_column="split"
    )
    for split in ("train", "test"):
        source = Csv(config, split=split)  # type: ignore[arg-type]
        assert source.labels is not None and len(source) == 3
        assert [int(source.classes[label]) for label in source.labels] == labels
        assert all((tmp_path / source.name(index)).is_file() for index in range(3))


def test_damaged_lists_and_half_unpacked_archives(tmp_path: Path) -> None:
    dataset_trees.coco(tmp_path / "coco")
    half = (tmp_path / "coco/annotations/instances_val2017.json").read_text()[:40]
    put(tmp_path / "coco", "annotations/instances_val2017.json", text=half)
    put(tmp_path / "coco", "annotations/instances_train2017.json", text="[1]")
    done = script("prepare_coco", tmp_path / "coco", "--part")
    assert done.returncode == 3 and "instances_val2017.json: cannot be read" in done.stderr
    assert "instances_train2017.json: has no list images, annotations" in done.stderr
    dataset_trees.places205(tmp_path / "places")
    put(tmp_path / "places", "val_places205.csv", text="a/abbey/1.jpg\n")
    done = script("prepare_places205", tmp_path / "places", "--part")
    assert "val_places205.csv, line 1: expected a path and a number" in done.stderr
    dataset_trees.imagenet(tmp_path / "imagenet")
    put(tmp_path / "imagenet", "train/n01440764.tar", "val/ILSVRC2012_val_00000001.JPEG")
    put(tmp_path / "imagenet", "train/n09999999/0.JPEG")
    done = script("prepare_imagenet", tmp_path / "imagenet", "--part")
    for said in (
        "train: 1 archives to unpack",
        "val: 1 images lie beside the folders of their classes",
        "classes of one split alone: n09999999",
    ):
        assert said in done.stderr


def test_what_a_copy_or_a_frame_belongs_to_must_be_there(tmp_path: Path) -> None:
    dataset_trees.copydays(tmp_path / "copydays")
    (tmp_path / "copydays/original/200100.jpg").unlink()
    done = script("prepare_copydays", tmp_path / "copydays", "--part")
    assert done.returncode == 3
    assert "strong: 1 copies without an original: 200101.jpg" in done.stderr
    put(tmp_path / "copydays", "crops/10/200000.jpg")
    crops = script("prepare_copydays", tmp_path / "copydays", "--part", "--parts", "crops")
    assert crops.returncode == 3 and "crops/15: cannot be listed" in crops.stderr
    assert "--download" not in crops.stderr  # no address is known for these
    dataset_trees.davis(tmp_path / "davis")
    for kind, ending in (("JPEGImages", "jpg"), ("Annotations", "png")):
        (tmp_path / "davis" / kind / "480p" / "camel" / f"00001.{ending}").unlink()
    for path in (tmp_path / "davis").glob("*/480p/bear/*"):
        path.unlink()
    done = script("prepare_davis", tmp_path / "davis", "--part")
    assert done.returncode == 3 and "train: 1 of 1 videos have no frames: bear" in done.stderr
    assert "val: frames: 1 of 6 missing: JPEGImages/480p/camel/00001.jpg" in done.stderr
    assert "val: masks: 1 of 6 missing: Annotations/480p/camel/00001.png" in done.stderr


def test_a_folder_says_what_it_is(tmp_path: Path) -> None:
    put(tmp_path, "b/1.jpg", "deep/er/2.JPG", "3.png")
    put(tmp_path, "notes.txt", "list.csv", "more.csv", text="x")
    done = script("prepare_folder", tmp_path, "--decode")
    assert done.returncode == 0, done.stderr
    assert "complete: all: 3 images\n" in done.stdout
    assert "left out, as not read as images: 2 .csv, 1 .txt" in done.stdout
    middle = bytearray(picture("PNG"))
    middle[300:400] = bytes(100)
    (tmp_path / "3.png").write_bytes(middle)
    assert script("prepare_folder", tmp_path).returncode == 0
    done = script("prepare_folder", tmp_path, "--decode")
    assert done.returncode == 3 and "damaged or cut short" in done.stderr
    dataset_trees.folder(tmp_path / "split")
    (tmp_path / "split/val/bee").rename(tmp_path / "split/val/cat")
    done = script("prepare_folder", tmp_path / "split")
    assert done.returncode == 3
    assert "train: no image of 1 classes: cat" in done.stderr
    assert "val: no image of 1 classes: bee" in done.stderr


def test_every_script_is_in_the_list() -> None:
    listed = (ROOT / "extra_scripts" / "README.md").read_text()
    for path in (ROOT / "extra_scripts").glob("*.py"):
        assert f"({path.name})" in listed, path
