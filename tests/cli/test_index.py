"""`unlabeled index` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests_support.commands import python, unlabeled
from tests_support.shards import names, png, put_images, put_shard
from unlabeled.cli import main as cli
from unlabeled.data.index.layout import ENTRIES
from unlabeled.data.index.reader import Index


def main(arguments: list[str]) -> int:
    """The command; what builds does so in this process, which is soonest for a few images."""
    builds = arguments[1] in ("build", "merge")
    return cli.main([*arguments, *["--workers", "1"] * builds])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    put_images(tmp_path / "photos", "cat/1.png", "dog/2.png", "dog/3.png")
    put_shard(tmp_path / "s.tar", [("a.png", png(7)), ("a.cls", b"dog")])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_build_check_stats_merge_and_shuffle(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", "build", "photos", "--labels", "folder", "--out", "a"]) == 0
    assert capsys.readouterr().out == "a: 3 images, 3 with a label, in 1 folders and shards\n"
    assert main(["index", "build", "s.tar", "--out", "b"]) == 0
    assert main(["index", "merge", "a", "b", "--out", "c"]) == 0
    assert main(["index", "check", "c", "--files"]) == 0
    assert capsys.readouterr().out.endswith("c: 4 entries, nothing wrong\n")
    assert main(["index", "stats", "c", "--json"]) == 0
    counted = json.loads(capsys.readouterr().out)
    assert (counted["entries"], counted["shards"], counted["largest_class"]) == (4, 1, 3)
    assert main(["index", "stats", "c"]) == 0
    assert "largest class   3" in capsys.readouterr().out
    assert main(["index", "shuffle", "c", "--seed", "1", "--out", "d"]) == 0
    assert sorted(names(Index("d"))) == sorted(names(Index("c")))


def test_a_second_build_of_the_same_changes_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", "build", "photos", "--out", "a"]) == 0
    written = (here / "a" / ENTRIES).stat()
    assert main(["index", "build", "photos", "--out", "a"]) == 0
    assert capsys.readouterr().out.endswith("folders and shards (there already)\n")
    assert (here / "a" / ENTRIES).stat() == written


def test_what_was_left_out_is_told_and_too_much_of_it_is_an_error(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_shard(here / "t.tar", [("x\x1b[2J.png", png(1)), ("y.png", b""), ("z.png", png(2))])
    assert main(["index", "build", "t.tar", "--out", "a"]) == 3
    text = capsys.readouterr().err
    assert "1 problems beside 2 images, more than --max-broken-share=0.01 allows" in text
    assert main(["index", "build", "t.tar", "--out", "a", "--max-broken-share", "0.4"]) == 0
    assert "unusable member: " in (text := capsys.readouterr().err)
    assert "t.tar/y.png: it is empty" in text


def test_check_names_what_is_wrong(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "build", "photos", "s.tar", "--out", "a"]) == 0
    for name in ("cat/1.png", "dog/2.png"):
        (here / "photos" / name).unlink()
    put_shard(here / "s.tar", [("a.png", bytes(5000))])
    assert main(["index", "check", "a"]) == 3
    assert main(["index", "check", "a", "--files"]) == 3
    shown = capsys.readouterr()
    assert shown.out.count(f"changed shard: {here}/s.tar ") == 2
    assert "unlabeled: a: 1 problems" in shown.err and "unlabeled: a: 3 problems" in shown.err
    assert f"vanished: {here}/photos/dog/2.png no such file or directory" in shown.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["merge", "photos", "--out", "x"], "photos is no index"),
        (["stats", "photos"], "photos is no index: it has no index.json"),
        (["build", "nowhere", "--out", "x"], "nowhere does not exist"),
        (["build", "photos", "--out", "photos"], "photos is there and is no index"),
    ],
)
def test_mistakes_are_told_in_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["index", *arguments]) in (2, 3)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("unlabeled: ") and message in line


@pytest.mark.slow
def test_the_command_needs_no_torch_and_the_component_is_listed(here: Path) -> None:
    code = "import sys\nfrom unlabeled.cli.main import main\nmain(sys.argv[1:])\n"
    code += "assert 'torch' not in sys.modules\n"
    result = python("-c", code, "index", "build", "photos", "--out", "a", cwd=here)
    assert result.returncode == 0, result.stderr
    assert "index" in unlabeled("list", "dataset").stdout
