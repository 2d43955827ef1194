from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tests_support.commands import ROOT
from tests_support.shards import built, labels, names, png, put_images, put_shard
from unlabeled.data.index import building, inputs, listings, records
from unlabeled.data.index.building import build
from unlabeled.data.index.inputs import plan
from unlabeled.data.index.layout import HEADER, UNKNOWN
from unlabeled.data.index.reader import Index
from unlabeled.errors import ConfigError, DataError, EnvironmentProblem


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of images at several depths, among files that are none."""
    root = tmp_path / "photos"
    put_images(root, "b/2.png", "b/10.JPEG", "a/deep/er/x.jpg", "top.png", "c.webp")
    put_images(root, ".hidden/x.png", "b/.y.png")
    (root / "notes.txt").write_text("no image")
    (root / "b" / "again").symlink_to(root / "b")
    return root


def paths(index: Index) -> list[str]:
    """Absolute paths of files, shard:member of members."""
    found = []
    for place in range(len(index)):
        entry = index.entry(place)
        container = index.container(entry.container)
        path = os.path.normpath(os.path.join(index.base, container.path)).decode()
        name = entry.name.decode()
        found.append(f"{path}:{name}" if container.kind else os.path.join(path, name))
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_gives_its_images_once_sorted_by_path(tree: Path, tmp_path: Path) -> None:
    result = built(tmp_path / "idx", tree)
    expected = ["a/deep/er/x.jpg", "b/10.JPEG", "b/2.png", "c.webp", "top.png"]
    assert names(Index(tmp_path / "idx")) == expected
    assert result.header.labelled == 0 and not result.notes.counts
    assert sorted(tmp_path.iterdir()) == [tmp_path / "idx", tree]  # nothing is left beside


def test_lists_of_all_kinds_name_the_same_images(tree: Path, tmp_path: Path) -> None:
    lines = ["b/2.png", "a/deep/er/x.jpg", "b/../top.png", str(tree / "c.webp")]
    (tree / "list.txt").write_bytes(("\ufeff" + "\r\n\n".join(lines)).encode())
    (tree / "list.tsv").write_text("size\tpath\n" + "".join(f"5\t{line}\n" for line in lines))
    (tree / "list.csv").write_text("path,label\n" + "".join(f'"{line}",\n' for line in lines))
    rows = [json.dumps({"path": line, "size": None}) for line in lines]
    (tree / "list.jsonl").write_text("\n\n".join(rows))
    np.save(tree / "list.npy", np.array(lines))
    np.save(tree / "bytes.npy", np.array([line.encode() for line in lines]))
    expected = sorted(str(tree / name) for name in ("a/deep/er/x.jpg", "b/2.png", "top.png"))
    expected.insert(2, str(tree / "c.webp"))
    for name in ("list.txt", "list.tsv", "list.csv", "list.jsonl", "list.npy", "bytes.npy"):
        index = tmp_path / f"idx-{name}"
        built(index, tree / name)
        assert paths(Index(index)) == expected
    assert Index(tmp_path / "idx-list.tsv").entry(0).length == 5
    assert Index(tmp_path / "idx-list.csv").entry(0).length == UNKNOWN


@pytest.mark.parametrize("piece", [1, 3, 10, 1 << 26])
def test_a_list_is_the_same_in_whatever_pieces_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(inputs, "LIST_BYTES", piece)
    given = ["a", "bc", "d e", "x" * 40, "\udcff", "z"]
    (tmp_path / "list.txt").write_bytes(os.fsencode("\n" + "\n\n".join(given)))
    built(tmp_path / "idx", tmp_path / "list.txt")
    index = Index(tmp_path / "idx")
    found = [os.fsdecode(index.entry(place).name) for place in range(len(index))]
    assert sorted(found) == sorted(given)


def test_lines_too_long_for_a_path_are_named_wherever_pieces_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listings, "MAX_LINE_BYTES", 16)
    for long in ("x" * 15, "x" * 16, "x" * 33):
        for piece in (5, 16):
            monkeypatch.setattr(inputs, "LIST_BYTES", piece)
            (tmp_path / "list.txt").write_text(f"a\n{long}\nb\n{long}")
            result = built(tmp_path / f"idx-{len(long)}-{piece}", tmp_path / "list.txt")
            found = set(names(Index(tmp_path / f"idx-{len(long)}-{piece}")))
            fits = len(long) == 15
            assert found == {"a", "b"} | ({long} if fits else set())
            assert result.notes.counts == ({"duplicate": 1} if fits else {"unusable line": 2})


def test_relative_paths_start_at_root_and_those_outside_of_it_keep_their_place(
    tmp_path: Path,
) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "list.txt").write_text("a.png\n../b.png\n/etc/c.png\n")
    built(tmp_path / "idx", tmp_path / "lists" / "list.txt", root=tmp_path / "x")
    expected = [f"{tmp_path}/b.png", f"{tmp_path}/x/a.png", "/etc/c.png"]
    assert paths(Index(tmp_path / "idx")) == sorted(expected)


def test_an_image_that_several_inputs_name_is_there_once_with_the_label_it_got(
    tree: Path, tmp_path: Path
) -> None:
    (tree / "table.csv").write_text("path,label\nb/2.png,10\ntop.png,9\nb/2.png,10\n")
    result = built(tmp_path / "idx", tree, tree / "b", tree / "table.csv")
    index = Index(tmp_path / "idx")
    expected = ["a/deep/er/x.jpg", "b/10.JPEG", "b/2.png", "c.webp", "top.png"]
    assert paths(index) == [str(tree / name) for name in expected]
    assert labels(index) == [None, None, "10", None, "9"]
    assert index.classes() == ("9", "10")  # numbers by value
    assert result.notes.counts == {"duplicate": 5} and result.header.labelled == 2


def test_first_subfolders_are_labels_where_that_is_asked_for(tree: Path, tmp_path: Path) -> None:
    built(tmp_path / "idx", tree, folder_labels=True)
    assert labels(Index(tmp_path / "idx")) == ["a", "b", "b", None, None]


def test_shards_are_read_by_path_and_then_in_their_order(tmp_path: Path) -> None:
    for name in ("s2.tar", "s1.tar"):
        put_shard(tmp_path / "in" / name, [("z.png", png(1)), ("z.cls", b"0"), ("a.png", png(2))])
    built(tmp_path / "idx", tmp_path / "in" / "s2.tar", tmp_path / "in", tmp_path / "in" / "s2.tar")
    index = Index(tmp_path / "idx")
    s1, s2 = (f"{tmp_path}/in/{name}" for name in ("s1.tar", "s2.tar"))
    assert paths(index) == [f"{s}:{m}.png" for s in (s1, s2) for m in "za"]
    assert labels(index) == ["0", None] * 2
    for place in range(4):
        entry = index.entry(place)
        data = Path(os.fsdecode(tmp_path), "in", "s1.tar").read_bytes()
        assert data[entry.offset : entry.offset + entry.length] == png(1 + place % 2)


def test_a_cut_shard_keeps_its_whole_members_and_is_named(tmp_path: Path) -> None:
    shard = tmp_path / "s.tar"
    put_shard(shard, [(f"{n}.png", png(n)) for n in range(5)])
    shard.write_bytes(shard.read_bytes()[:2600])  # in the data of the third
    result = built(tmp_path / "idx", shard)
    assert names(Index(tmp_path / "idx")) == ["0.png", "1.png"]
    assert [(p.kind, p.name) for p in result.notes.named] == [("damaged shard", str(shard))]
    assert "in the middle of the member at byte 2048" in result.notes.named[0].reason
    assert result.header.problems == {"damaged shard": 1}
    with pytest.raises(DataError, match=r"1 problems beside 2 images, more than .*0\.3 allows"):
        built(tmp_path / "strict", shard, max_broken_share=0.3)
    assert not (tmp_path / "strict").exists()


def test_rows_and_files_that_cannot_be_used_are_named(tree: Path, tmp_path: Path) -> None:
    rows = ['{"path": 3}', "[1]", "{", '{"path": "a\\u0000b"}', '{"path": "x", "size": "big"}']
    rows += [json.dumps({"path": "x", "label": "y" * 1025})]
    rows += ['{"path": "gone.png"}', '{"path": "top.png"}', '{"path": "\\ud800"}']
    nowhere = ["/", "https://host", "https://host//", "../" * 40]
    rows += [json.dumps({"path": path}) for path in nowhere]
    (tree / "list.jsonl").write_text("\n".join(rows))
    result = built(tmp_path / "idx", tree / "list.jsonl", sizes=True, max_broken_share=0.95)
    index = Index(tmp_path / "idx")
    assert names(index) == ["top.png"]
    assert index.entry(0).length == (tree / "top.png").stat().st_size
    assert result.notes.counts == {"unusable row": 5, "unusable path": 6, "missing file": 1}


@pytest.mark.slow
def test_two_processes_and_small_runs_give_the_same_bytes(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_shard(tree / "s.tar", [(f"{n}.png", png(n)) for n in range(5)])
    built(tmp_path / "idx1", tree)
    built(tmp_path / "idx2", tree, workers=2)
    assert content(tmp_path / "idx1") == content(tmp_path / "idx2")
    monkeypatch.setattr(records, "RECORDS_IN_MEMORY", 2)
    built(tmp_path / "idx3", tree)
    assert content(tmp_path / "idx1") == content(tmp_path / "idx3")


def test_a_build_that_was_stopped_goes_on_and_reads_nothing_twice(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(tmp_path / "whole", tree)
    units = plan([str(tree)], root=None, folder_labels=False, sizes=False)

    def stop(done: int, of: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(units, tmp_path / "idx", workers=1, progress=stop)
    assert not (tmp_path / "idx").exists()
    read: list[int] = []
    run_unit = building.run_unit
    monkeypatch.setattr(building, "run_unit", lambda w, n, u: (read.append(n), run_unit(w, n, u)))
    build(units, tmp_path / "idx", workers=1)
    assert read == list(range(2, len(units))) and len(units) == 3
    assert content(tmp_path / "idx") == content(tmp_path / "whole")
    read.clear()
    assert build(units, tmp_path / "idx", workers=1).was_there and not read


@pytest.mark.slow
def test_a_build_that_was_killed_goes_on(tmp_path: Path) -> None:
    """SIGKILL to the command while its processes work; none of them outlives it."""
    for number in range(inputs.SHARDS_PER_UNIT):  # one unit that is done at once
        put_shard(tmp_path / "in" / f"{number:02d}.tar", [(f"{n}.png", png(n)) for n in range(5)])
    # and one that takes a while
    put_shard(tmp_path / "in" / "last.tar", [(f"{n}.png", b"x") for n in range(10_000)])
    command = [sys.executable, "-m", "unlabeled", "index", "build", "in", "--out", "idx"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "platform")}
    process = subprocess.Popen(
        [*command, "--workers", "2"], cwd=tmp_path, env=environment, start_new_session=True
    )
    work = tmp_path / ".idx.part"
    while process.poll() is None and not list(work.glob("unit-*.json")):
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not (tmp_path / "idx").exists() and list(work.glob("unit-*.json"))
    deadline = time.monotonic() + 30
    while group_alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not group_alive(process.pid)
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    built(tmp_path / "whole", tmp_path / "in")
    assert content(tmp_path / "idx") == content(tmp_path / "whole")
    assert len(Index(tmp_path / "idx")) == 5 * inputs.SHARDS_PER_UNIT + 10_000


def group_alive(group: int) -> bool:
    try:
        os.killpg(group, signal.SIG_DFL)
    except ProcessLookupError:
        return False
    return True


def test_a_build_of_something_else_is_refused(tree: Path, tmp_path: Path) -> None:
    built(tmp_path / "idx", tree / "b")
    with pytest.raises(ConfigError, match="an index of other inputs"):
        built(tmp_path / "idx", tree)
    (tmp_path / "other").mkdir()
    with pytest.raises(ConfigError, match="is no index"):
        built(tmp_path / "other", tree)
    (tmp_path / ".new.part").mkdir()
    (tmp_path / ".new.part" / building.PLAN).write_text("{}")
    with pytest.raises(ConfigError, match="begun with other inputs"):
        built(tmp_path / "new", tree)


def test_one_build_at_a_time(tree: Path, tmp_path: Path) -> None:
    with building._held(tmp_path / ".idx.part"), pytest.raises(EnvironmentProblem, match="another"):
        built(tmp_path / "idx", tree)
    built(tmp_path / "idx", tree)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no", "does not exist; give a folder"),
        ("a.tar.gz", "unpack it to a plain .tar"),
        ("a.doc", "the kind of input is not known"),
        ("empty", "no images were found"),
        ("list.csv", "has no column `path`"),
        ("a.npy", "expected a one-dimensional array of strings"),
    ],
)
def test_inputs_that_are_none_are_named(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.tar.gz").touch()
    (tmp_path / "a.doc").touch()
    (tmp_path / "list.csv").write_text("file\nx\n")
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises((DataError, ConfigError), match=message):
        built(tmp_path / "idx", tmp_path / name)
    assert not (tmp_path / "idx").exists()


def test_merging_indexes_is_indexing_all_their_inputs(tree: Path, tmp_path: Path) -> None:
    put_shard(tree / "s.tar", [(f"{n}.png", png(n)) for n in range(3)])
    built(tmp_path / "all", tree, folder_labels=True)
    built(tmp_path / "one", tree / "b", tree / "s.tar")
    built(tmp_path / "two", tree, folder_labels=True)
    result = built(tmp_path / "idx", tmp_path / "one", tmp_path / "two")
    merged, whole = Index(tmp_path / "idx"), Index(tmp_path / "all")
    assert paths(merged) == paths(whole) and labels(merged) == labels(whole)
    assert result.notes.counts == {"duplicate": 5}
    assert [merged.entry(n)[2:] for n in range(3)] == [whole.entry(n)[2:] for n in range(3)]


@pytest.mark.slow
def test_the_memory_of_a_build_does_not_grow_with_what_is_indexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "RECORDS_IN_MEMORY", 250)
    peaks = []
    for count in (1_000, 10_000):
        (tmp_path / f"{count}.txt").write_text("".join(f"{n:050d}.png\n" for n in range(count)))
        tracemalloc.start()
        built(tmp_path / f"idx{count}", tmp_path / f"{count}.txt")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Ten times the images: 9,000 more records would take 400 bytes each, 3.6 MB. What grows are the
    # buffers of 36 more open runs, 33 kB each at most.
    assert peaks[1] < peaks[0] + 36 * 40_000
    assert (tmp_path / "idx10000" / HEADER).exists()
