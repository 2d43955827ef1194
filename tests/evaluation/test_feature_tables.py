"""The index of features as CSV and as Parquet: the same lines, whatever files are called."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from tests_support.extracting import contents, extract_config, extracted
from unlabeled.errors import DataError, EnvironmentProblem
from unlabeled.evaluation.extraction import extract_features
from unlabeled.evaluation.feature_store import INDEX_COLUMNS, FeatureStore
from unlabeled.evaluation.feature_tables import TableFormat, read_lines, write_lines

HOSTILE = [
    *("plain.png", "line\nbreak.png", "carriage\rreturn.png", "both\r\n.png", "comma, comma.png"),
    *('quote".png', '"', ",", " leading.png", "trailing.png ", "\ttab\t", " ", "=1+1", "#.png"),
    *("\udcff\udcfe.png", "a\udce9.png", "\u00e9\u4e2d\U0001f600.png", "\ufffd.png", "null", "NA"),
]
LINES = [
    [place, 7 * place, name, None if place % 3 else place, place // 5]
    for place, name in enumerate(HOSTILE)
]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_lines_come_back_as_they_were(tmp_path: Path, kind: TableFormat) -> None:
    path = tmp_path / f"index.{kind}"
    write_lines(path, INDEX_COLUMNS, LINES, kind)
    assert list(read_lines(path, INDEX_COLUMNS, kind)) == LINES
    write_lines(path, INDEX_COLUMNS, [], kind)
    assert list(read_lines(path, INDEX_COLUMNS, kind)) == []


def test_other_programs_read_the_parquet_table(tmp_path: Path) -> None:
    write_lines(tmp_path / "index.parquet", INDEX_COLUMNS, LINES, "parquet")
    table = pyarrow.parquet.read_table(tmp_path / "index.parquet")
    assert [str(field.type) for field in table.schema] == [
        *("int64", "int64", "string", "int64", "int32", "binary")
    ]
    cells = table.to_pydict()
    for name, shown, exact in zip(HOSTILE, cells["file"], cells["file_bytes"], strict=True):
        raw = name.encode("utf-8", "surrogateescape")
        try:
            assert (shown, exact) == (raw.decode("utf-8"), None)
        except UnicodeDecodeError:
            assert exact == raw and shown == raw.decode("utf-8", "replace")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_damaged_tables_are_named(tmp_path: Path, kind: TableFormat) -> None:
    path = tmp_path / f"index.{kind}"
    with pytest.raises(DataError, match="cannot read"):
        list(read_lines(path, INDEX_COLUMNS, kind))
    write_lines(path, INDEX_COLUMNS, LINES, kind)
    whole = path.read_bytes()
    for damaged in (b"", whole[:-9], whole[: len(whole) // 2], b"row,image\n1,2\n"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"cannot read|must have the columns"):
            list(read_lines(path, INDEX_COLUMNS, kind))


@pytest.mark.slow
def test_an_extraction_writes_either_and_both_say_the_same(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for kind in ("ant", "bee"):
        (root / kind).mkdir(parents=True)
        for name in (" x.png", "line\nbreak.png", "\udcff.png"):
            Image.fromarray(pixels).save(root / kind / "x.png")
            (root / kind / "x.png").rename(root / kind / name)
    (root / "bee" / "broken, .png").write_bytes(b"")
    data = ("dataset=folder", f"dataset.root={root}")
    stores = []
    for kind in ("csv", "parquet"):
        extract_features(
            extract_config(tmp_path / kind, *data, f"index={kind}"), torch.device("cpu")
        )
        stores.append(FeatureStore(tmp_path / kind))
        assert sorted(path.suffix for path in (tmp_path / kind).glob("*.[cp]*")) == [f".{kind}"] * 2
    csv, parquet = stores
    assert list(csv.index()) == list(parquet.index()) and len(csv) == 6
    assert list(csv.broken()) == list(parquet.broken()) != []
    assert parquet.labels is not None and parquet.labels.tolist() == [0, 0, 0, 1, 1, 1]
    # The same folder can be given the other kind later; no image is encoded again.
    before = contents(tmp_path / "csv" / "features")
    (root / "ant" / " x.png").write_bytes(b"gone")
    extract_features(extract_config(tmp_path / "csv", *data, "index=parquet"), torch.device("cpu"))
    assert contents(tmp_path / "csv" / "features") == before
    assert list(FeatureStore(tmp_path / "csv").index()) == list(parquet.index())


@pytest.mark.slow
def test_without_pyarrow_the_way_to_get_it_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'unlabeled\[parquet\]'"):
        extracted(tmp_path / "out", "index=parquet")
    assert not (tmp_path / "out").exists()
    extracted(tmp_path / "out")
    monkeypatch.undo()
    importlib.import_module("pyarrow")
