"""extra_scripts/prepare_*.py on small folders of the real layouts: what is missing is said."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests_support.commands import ROOT, python
from unlabeled.data.sources.csv import Csv

VOC_CLASSES = (ROOT / "extra_scripts" / "prepare_voc.py").read_text().split("CLASSES = ")[1]

pytestmark = pytest.mark.slow


def prepare(name: str, root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return python(str(ROOT / "extra_scripts" / f"prepare_{name}.py"), str(root), *options)


def put(root: Path, *names: str, text: str = "x") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def imagenet(root: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        for wnid in ("n01440764", "n01443537"):
            put(root, *(f"{split}/{wnid}/{number}.JPEG" for number in range(count)))


def inat18(root: Path) -> None:
    for split, first in (("train", 0), ("val", 3)):
        names = [f"train_val2018/Plantae/{i}/a, {i}.jpg" for i in range(first, first + 3)]
        put(root, *names)
        images = [{"id": 70 + i, "file_name": name} for i, name in enumerate(names, first)]
        # In another order than the images, as nothing promises the same one.
        known = [{"image_id": each["id"], "category_id": 5 - i} for i, each in enumerate(images)]
        put(
            root,
            f"{split}2018.json",
            text=json.dumps({"images": images, "annotations": known[::-1]}),
        )


def places205(root: Path) -> None:
    for split in ("train", "val"):
        lines = [f"a/abbey/{split} {number}.jpg {number}" for number in range(3)]
        put(root, *(line.rpartition(" ")[0] for line in lines))
        put(root, f"{split}_places205.csv", text="\n".join(lines) + "\n")


def voc(root: Path) -> None:
    scope: dict[str, Any] = {}
    exec("CLASSES = " + VOC_CLASSES.split("]")[0] + "]", scope)
    for year, splits in ((2007, ("trainval", "test")), (2012, ("train", "val", "trainval"))):
        for number, split in enumerate(splits):
            name = f"00000{number}"
            put(root, f"VOC{year}/JPEGImages/{name}.jpg", f"VOC{year}/Annotations/{name}.xml")
            put(root, f"VOC{year}/ImageSets/Main/{split}.txt", text=f"{name}\n")
            put(root, *(f"VOC{year}/ImageSets/Main/{c}_{split}.txt" for c in scope["CLASSES"]))


def coco(root: Path) -> None:
    for split in ("train2017", "val2017"):
        images = [{"id": number, "file_name": f"{number:012}.jpg"} for number in range(3)]
        put(root, *(f"{split}/{each['file_name']}" for each in images))
        content = {"images": images, "annotations": [{"image_id": 2}], "categories": [{}]}
        put(root, f"annotations/instances_{split}.json", text=json.dumps(content))


LAYOUTS = {
    "imagenet": (imagenet, "val/n01440764/0.JPEG", "val: images: 4, published are 50,000"),
    "inat18": (inat18, "train_val2018/Plantae/4/a, 4.jpg", "images: 3, published are 437,513"),
    "places205": (places205, "a/abbey/val 1.jpg", "images: 3, published are 2,448,873"),
    "voc": (voc, "VOC2012/JPEGImages/000001.jpg", "VOC2007 test: 1, published are 4,952"),
    "coco": (coco, "val2017/000000000001.jpg", "val2017: images: 3, published are 5,000"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_there_is_checked_and_what_is_not_is_named(name: str, tmp_path: Path) -> None:
    make, lost, counted = LAYOUTS[name]
    root = tmp_path / "data"
    nothing = prepare(name, root)
    assert nothing.returncode == 3 and "expected:\n" in nothing.stderr
    assert "Traceback" not in nothing.stderr and not root.exists()
    make(root)
    before = contents(root)
    whole = prepare(name, root, "--part")
    assert whole.returncode == 0 and whole.stdout.startswith("complete: "), whole.stderr
    for table in root.glob("*18.csv"), root.glob("places205.csv"):
        for path in table:
            path.unlink()
    few = prepare(name, root)
    assert few.returncode == 3 and counted in few.stderr, few.stderr
    (root / lost).write_text("")
    empty = prepare(name, root, "--part")
    assert empty.returncode == 3 and "1 of " in empty.stderr and " empty: " in empty.stderr
    (root / lost).unlink()
    if name != "imagenet":  # no list says what is in its folders
        gone = prepare(name, root, "--part")
        assert gone.returncode == 3 and " missing: " in gone.stderr
        assert lost.rpartition("/")[2] in gone.stderr
    (root / lost).write_text("x")
    assert contents(root) == before  # nothing is written where something is wrong


@pytest.mark.parametrize(
    ("name", "table", "labels"),
    [("inat18", "inat18.csv", [5, 4, 3]), ("places205", "places205.csv", [0, 1, 2])],
)
def test_the_table_is_a_data_set(name: str, table: str, labels: list[int], tmp_path: Path) -> None:
    LAYOUTS[name][0](tmp_path)
    done = prepare(name, tmp_path, "--part")
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
    coco(tmp_path / "coco")
    half = (tmp_path / "coco/annotations/instances_val2017.json").read_text()[:40]
    put(tmp_path / "coco", "annotations/instances_val2017.json", text=half)
    put(tmp_path / "coco", "annotations/instances_train2017.json", text="[1]")
    done = prepare("coco", tmp_path / "coco", "--part")
    assert done.returncode == 3 and "instances_val2017.json: cannot be read" in done.stderr
    assert "instances_train2017.json: has no list images, annotations" in done.stderr
    places205(tmp_path / "places")
    put(tmp_path / "places", "val_places205.csv", text="a/abbey/1.jpg\n")
    done = prepare("places205", tmp_path / "places", "--part")
    assert "val_places205.csv, line 1: expected a path and a number" in done.stderr
    imagenet(tmp_path / "imagenet")
    put(tmp_path / "imagenet", "train/n01440764.tar", "val/ILSVRC2012_val_00000001.JPEG")
    put(tmp_path / "imagenet", "train/n09999999/0.JPEG")
    done = prepare("imagenet", tmp_path / "imagenet", "--part")
    for said in (
        "train: 1 archives to unpack",
        "val: 1 images lie beside the folders of their classes",
        "classes of one split alone: n09999999",
    ):
        assert said in done.stderr
