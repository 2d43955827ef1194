from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unlabeled.config.check import build_config
from unlabeled.data.sources.base import Split
from unlabeled.data.sources.csv import Csv
from unlabeled.errors import ConfigError, DataError

TABLE = """file,species,fold
a.png,wolf,train
"b, c.png",ant,train
d.png,bee,val
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.png", "b, c.png", "d.png")):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / name)
    (tmp_path / "table.csv").write_text(TABLE)
    return tmp_path / "table.csv"


def build(table: Path, split: Split = "train", **fields: Any) -> Csv:
    data = {"path": str(table), "path_column": "file", **fields}
    return Csv(build_config(Csv.Config, data), split=split)


def test_rows_columns_and_splits(table: Path) -> None:
    fields = {"label_column": "species", "split_column": "fold"}
    train, test = build(table, **fields), build(table, "test", **fields)
    assert [train.name(i) for i in range(len(train))] == ["a.png", "b, c.png"]
    assert [test.name(i) for i in range(len(test))] == ["d.png"]
    assert train.classes == test.classes == ("ant", "bee", "wolf")
    assert train.labels is not None and train.labels.tolist() == [2, 0]
    assert test.labels is not None and test.labels.tolist() == [1]
    assert train.image(1)[0, 0].tolist() == [1, 0, 0]


def test_without_columns_all_rows_train_without_labels(table: Path) -> None:
    source = build(table)
    assert len(source) == 3 and source.labels is None


def test_spreadsheets_and_tabs(table: Path) -> None:
    text = TABLE.replace("b, c.png", "b c.png").replace('"', "").replace(",", ";")
    table.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    source = build(table, delimiter=";", split_column="fold", train_values=["val"])
    assert [source.name(0)] == ["d.png"]


def test_paths_start_at_root(table: Path, tmp_path: Path) -> None:
    moved = tmp_path / "tables" / "t.csv"
    moved.parent.mkdir()
    table.rename(moved)
    assert build(moved, root=str(tmp_path)).image(2)[0, 0].tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    ("fields", "split", "message"),
    [
        (
            {"path_column": "files"},
            "train",
            r"path_column: .* no column 'files'. Did you mean 'file'",
        ),
        ({"label_column": "x"}, "train", "label_column: .*Columns: file, species, fold"),
        ({}, "test", "name the column that tells as split_column"),
        (
            {"split_column": "fold", "test_values": ["dev"]},
            "test",
            "no rows for test: column 'fold' says train, val, test_values are dev",
        ),
        ({"path": "/no/such.csv"}, "train", "cannot read /no/such.csv"),
    ],
)
def test_faults_are_named(table: Path, fields: Any, split: Split, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build(table, split, **fields)


def test_an_empty_label_is_named_by_its_line(table: Path) -> None:
    table.write_text("file,species\na.png,wolf\nd.png\n")
    with pytest.raises(DataError, match="line 3: the label is empty"):
        build(table, label_column="species")


def test_an_empty_path_is_named_by_its_line_and_an_empty_row_is_none(table: Path) -> None:
    table.write_text("file,species\na.png,wolf\n,\n ,\t\n\nd.png,ant\n")
    assert len(build(table, label_column="species")) == 2
    table.write_text("file,species\na.png,wolf\n,ant\n")
    with pytest.raises(DataError, match="line 3: the path is empty"):
        build(table)


def test_paths_keep_their_blanks_and_labels_do_not(table: Path) -> None:
    names = [" a.png", "a.png ", "\ta\n.png", '"a".png', "a, b.png", " "]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["file", "species"], *([name, " wolf "] for name in names)])
    source = build(table, label_column="species")
    assert [source.name(index) for index in range(len(source))] == names
    assert source.classes == ("wolf",)


@pytest.mark.parametrize("text", ["", "file,species\n"])
def test_an_empty_table_is_refused(table: Path, text: str) -> None:
    table.write_text(text)
    with pytest.raises(DataError, match=r"no column 'file'|no rows below its header"):
        build(table)


def test_the_delimiter_is_one_character(table: Path) -> None:
    with pytest.raises(ConfigError, match="delimiter: must be one character"):
        build(table, delimiter="::")
