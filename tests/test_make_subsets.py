"""extra_scripts/make_subsets.py on folders and on data sets that the package has."""

from __future__ import annotations

import csv
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from tests_support.scripts import script
from unlabeled.data.sources.csv import Csv
from unlabeled.data.sources.digits import Digits
from unlabeled.data.sources.folder import Folder
from unlabeled.data.sources.labelled_subset import LabelledSubset, choose

SIZES = {"n01440764": 31, "n01443537": 20, "n01484850": 49}


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """Three classes as ImageNet has them; files are never opened."""
    root = tmp_path / "imagenet"
    for synset, count in SIZES.items():
        for split in ("train", "val"):
            folder = root / split / synset
            folder.mkdir(parents=True)
            for number in range(count if split == "train" else 2):
                (folder / f"{synset}_{number * 7}.JPEG").touch()
    return root


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return script("make_subsets", *arguments)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_help_says_what_it_does() -> None:
    result = run("--help")
    assert result.returncode == 0 and "--nested" in result.stdout


def test_lists_are_what_the_benchmark_chooses_and_reads(imagenet: Path, tmp_path: Path) -> None:
    out = tmp_path / "subsets"
    result = run(imagenet, "--fraction", "0.1", "--per-class", "13", "--seed", "5", "--out", out)
    assert result.returncode == 0, result.stderr
    assert "100 images of 3 classes" in result.stdout
    assert "10percent_seed5.txt and .csv: 10 images, 2 to 5 a class" in result.stdout
    assert "13_per_class_seed5.txt and .csv: 39 images, 13 to 13 a class" in result.stdout
    source = Folder(Folder.Config(root=str(imagenet)), split="train")
    assert source.labels is not None
    for name, subset in (
        ("10percent", LabelledSubset(fraction=0.1)),
        ("13_per_class", LabelledSubset(per_class=13)),
    ):
        listed = out / f"{name}_seed5.txt"
        places = choose(source, subset, 5)
        assert lines(listed) == sorted(source.name(i).split("/")[1] for i in places)
        assert choose(source, LabelledSubset(list=str(listed)), 0).tolist() == places.tolist()
        table = Csv(
            Csv.Config(
                path=str(out / f"{name}_seed5.csv"),
                label_column="label",
                root=str(imagenet / "train"),
            ),
            split="train",
        )
        assert table.labels is not None
        found = {table.name(i): table.classes[table.labels[i]] for i in range(len(table))}
        assert found == {source.name(i): source.classes[source.labels[i]] for i in places}


@pytest.mark.slow
def test_the_same_seed_writes_the_same_files_whatever_the_order_on_disk(
    imagenet: Path, tmp_path: Path
) -> None:
    rows = [f"{path.parent.name}/{path.name}" for path in (imagenet / "train").rglob("*.JPEG")]
    contents = []
    for number, order in enumerate((sorted(rows), sorted(rows, reverse=True), rows)):
        table = tmp_path / f"table{number}.csv"
        with table.open("w", newline="") as file:
            csv.writer(file).writerows(
                [("path", "species"), *((row, row.split("/")[0]) for row in order)]
            )
        out = tmp_path / f"out{number}"
        result = run(
            *("dataset=csv", f"dataset.path={table}", "dataset.label_column=species"),
            *("--fraction", "0.2", "--out", out),
        )
        assert result.returncode == 0, result.stderr
        contents.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert contents[0] == contents[1] == contents[2]
    assert set(contents[0]) == {"20percent_seed0.txt", "20percent_seed0.csv"}
    run(imagenet, "--fraction", "0.2", "--out", tmp_path / "folder")
    assert (tmp_path / "folder" / "20percent_seed0.txt").read_bytes() == contents[0][
        "20percent_seed0.txt"
    ]
    run(imagenet, "--fraction", "0.2", "--seed", "1", "--out", tmp_path / "folder")
    assert lines(tmp_path / "folder" / "20percent_seed1.txt") != lines(
        tmp_path / "folder" / "20percent_seed0.txt"
    )


def test_nested_subsets_contain_each_other(imagenet: Path, tmp_path: Path) -> None:
    shares = ("0.04", "0.05", "0.06", "0.33", "0.5")
    result = run(imagenet, "--nested", "--fraction", *shares, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    subsets = [set(lines(tmp_path / f"{100 * float(s):g}percent_seed0.txt")) for s in shares]
    assert [len(subset) for subset in subsets] == [4, 5, 6, 33, 50]
    assert all(small < large for small, large in pairwise(subsets))


def test_data_sets_of_the_package_are_taken_with_their_paths(tmp_path: Path) -> None:
    result = run("dataset=digits", "dataset.seed=3", "--per-class", "2", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    source = Digits(Digits.Config(seed=3), split="train")
    with (tmp_path / "2_per_class_seed0.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert sorted(row["label"] for row in rows) == sorted([*source.classes] * 2)
    assert all(row["path"].split("/")[2] == row["label"] for row in rows)


def test_images_of_the_same_file_name_are_listed_by_path(tmp_path: Path) -> None:
    for name in ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg"):
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    run(tmp_path / "pets", "--fraction", "1", "--out", tmp_path)
    assert lines(tmp_path / "100percent_seed0.txt") == ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["{root}"], 2, "give the sizes as --fraction"),
        (["{root}", "--fraction", "0.01"], 3, "leave 2 of 3 classes without one"),
        (["{root}", "--per-class", "21"], 3, "there are only 20 of 'n01443537'"),
        (["{root}/train/n01440764", "--fraction", "0.1"], 3, "have no labels"),
        (["{root}/nowhere", "--fraction", "0.1"], 3, "nowhere does not exist"),
        (["{root}", "--fraction", "1.5"], 2, "1.5 is not a share"),
        (["dataset=fodler", "--fraction", "0.1"], 2, "Did you mean 'folder'"),
        (["dataset=digits", "dataset.sede=1", "--fraction", "0.1"], 2, "Did you mean 'seed'"),
        (["{root}", "--fraction", "0.5", "--per-class", "16", "--nested"], 3, "at most"),
    ],
)
def test_what_cannot_be_chosen_is_said_without_a_traceback(
    imagenet: Path, tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    out = tmp_path / "out"
    result = run(*(word.format(root=imagenet) for word in arguments), "--out", out)
    assert result.returncode == status, result.stderr
    assert message in result.stderr and "Traceback" not in result.stderr
