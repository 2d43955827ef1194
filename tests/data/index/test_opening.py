from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest

from tests_support.shards import built, png, put_images, put_shard
from unlabeled.data.decode import BrokenImage
from unlabeled.data.index import opening
from unlabeled.data.index.layout import Kind
from unlabeled.data.index.opening import Opener, Roots, container_problem
from unlabeled.data.index.reader import Container, Entry, Index


def read(opener: Opener, index: Index, place: int) -> bytes:
    entry = index.entry(place)
    container = index.container(entry.container)
    if container.kind == Kind.SHARD:
        return opener.member(container, entry)
    return Path(os.fsdecode(opener.file_path(container, entry))).read_bytes()


def reason(opener: Opener, index: Index, place: int) -> str:
    with pytest.raises(BrokenImage) as caught:
        read(opener, index, place)
    return str(caught.value)


def opener(index: Index, *roots: Path, anywhere: bool = False) -> Opener:
    folders = [index.base, *map(os.fsencode, roots)]
    return Opener(index.base, Roots(folders, anywhere=anywhere))


def test_files_and_members_are_read_as_they_were_put(tmp_path: Path) -> None:
    put_images(tmp_path / "in", "a.png", "b.png")
    put_shard(tmp_path / "in" / "s.tar", [(f"{n}.png", png(n)) for n in range(3)])
    built(tmp_path / "idx", tmp_path / "in")
    index = Index(tmp_path / "idx")
    found = [read(opener(index), index, place) for place in range(5)]
    assert found == [png(0), png(1), png(0), png(1), png(2)]


def test_an_index_may_travel_with_its_images(tmp_path: Path) -> None:
    put_images(tmp_path / "old" / "in", "a.png")
    put_shard(tmp_path / "old" / "s.tar", [("0.png", png(3))])
    built(tmp_path / "old" / "idx", tmp_path / "old" / "in", tmp_path / "old" / "s.tar")
    (tmp_path / "old").rename(tmp_path / "new")
    index = Index(tmp_path / "new" / "idx")
    assert [read(opener(index), index, place) for place in (0, 1)] == [png(0), png(3)]


def test_nothing_outside_of_the_roots_is_opened_whatever_the_index_says(tmp_path: Path) -> None:
    put_images(tmp_path / "out", "secret.png")
    put_images(tmp_path / "root", "a.png")
    put_shard(tmp_path / "out" / "s.tar", [("0.png", png(3))])
    (tmp_path / "root" / "link.png").symlink_to(tmp_path / "out" / "secret.png")
    (tmp_path / "root" / "folder").symlink_to(tmp_path / "out")
    (tmp_path / "root" / "s.tar").symlink_to(tmp_path / "out" / "s.tar")
    root, out = os.fsencode(tmp_path / "root"), os.fsencode(tmp_path / "out")
    strict = Opener(root, Roots([root], anywhere=False))

    def file(container: bytes, name: bytes, opener: Opener = strict) -> bytes:
        entry = Entry(0, name, 0, 0, 0)
        return opener.file_path(Container(container, Kind.FOLDER, 0, 0), entry)

    assert file(root, b"a.png") == file(b".", b"a.png") == root + b"/a.png"
    hostile = [
        *((root, b"../out/secret.png"), (root, b"/etc/passwd"), (out, b"secret.png")),
        *((root, b"link.png"), (root, b"folder/secret.png"), (b"../out", b"secret.png")),
        *((b"folder", b"secret.png"), (root, b"a.png\0.png"), (b"/", b"etc/passwd")),
        *((root + b"/../out", b"secret.png"), (root + b"x", b"a.png"), (root, b"..")),
    ]
    for container, name in hostile:
        with pytest.raises(BrokenImage):
            file(container, name)
    for path in (out + b"/s.tar", root + b"/s.tar", b"s.tar", b"../out/s.tar"):
        with pytest.raises(BrokenImage, match="outside of the allowed folders"):
            strict.member(Container(path, Kind.SHARD, 0, 0), Entry(0, b"0.png", 512, 10, 0))
    allowed = Opener(root, Roots([root, out], anywhere=False))
    assert file(root, b"link.png", allowed) == out + b"/secret.png"
    anywhere = Opener(root, Roots([], anywhere=True))
    assert file(root, b"folder/secret.png", anywhere)
    for name in (b"../out/secret.png", b"/etc/passwd", b"x/../a.png", b".."):
        with pytest.raises(BrokenImage, match="leads out of its folder"):
            file(root, name, anywhere)  # leave to go anywhere is leave for folders, not for names


def test_a_link_inside_an_index_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    """A build keeps links as they are named; reading asks where they lead, then and there."""
    put_images(tmp_path / "out" / "folder", "secret.png")
    put_shard(tmp_path / "out" / "s.tar", [("0.png", png(3))])
    put_images(tmp_path / "home" / "in", "a.png")
    inside = tmp_path / "home" / "in"
    (inside / "file.png").symlink_to(tmp_path / "out" / "folder" / "secret.png")
    (inside / "folder").symlink_to(tmp_path / "out" / "folder")
    (inside / "s.tar").symlink_to(tmp_path / "out" / "s.tar")
    (inside / "beside.png").symlink_to("a.png")
    built(tmp_path / "home" / "idx", inside)
    index = Index(tmp_path / "home" / "idx")
    strict = opener(index)
    found = {}
    for place in range(len(index)):
        try:
            found[index.entry(place).name] = read(strict, index, place)
        except BrokenImage as error:
            assert "outside of the allowed folders" in str(error)
    assert found == {b"a.png": png(0), b"beside.png": png(0)} and len(index) == 5
    allowed = opener(index, tmp_path / "out")
    assert [read(allowed, index, place) for place in range(5)].count(png(3)) == 1


def test_a_root_may_be_named_by_a_link(tmp_path: Path) -> None:
    """As /data often is one: what lies below the folder that it leads to may be opened."""
    put_images(tmp_path / "disk", "a.png")
    put_shard(tmp_path / "disk" / "s.tar", [("0.png", png(3))])
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    built(tmp_path / "home" / "idx", tmp_path / "data")
    index = Index(tmp_path / "home" / "idx")
    for root in (tmp_path / "data", tmp_path / "disk"):
        allowed = opener(index, root)
        assert [read(allowed, index, place) for place in (0, 1)] == [png(0), png(3)]
        roots = Roots([os.fsencode(root)], anywhere=False)
        for number in range(index.header.containers):
            assert container_problem(index.container(number), index.base, roots) is None


def test_an_index_may_be_named_by_a_link(tmp_path: Path) -> None:
    """Its images are those beside the index itself, not those beside the link."""
    put_images(tmp_path / "disk" / "in", "a.png")
    put_images(tmp_path / "in", "other.png", "a.png")
    built(tmp_path / "disk" / "idx", tmp_path / "disk" / "in")
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "idx")
    index = Index(tmp_path / "link")
    assert read(opener(index), index, 0) == png(0)
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    built(tmp_path / "home" / "again", tmp_path / "disk" / "in")
    assert not os.path.isabs(Index(tmp_path / "disk" / "again").container(0).path)


@pytest.mark.parametrize("kind", Kind)
def test_a_container_that_is_a_link_out_is_found_before_anything_is_opened(
    tmp_path: Path, kind: Kind
) -> None:
    put_images(tmp_path / "out", "secret.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "out")
    base = os.fsencode(tmp_path / "root")
    for name in (b"link", base + b"/link", b"../out", b"link/../out"):
        container = Container(name, kind, 0, 0)
        strict = Roots([base], anywhere=False)
        assert container_problem(container, base, strict) == str(tmp_path / "out")
        for roots in (Roots([os.fsencode(tmp_path)], anywhere=False), Roots([], anywhere=True)):
            assert container_problem(container, base, roots) is None
        # Of a folder above a root, what lies below the root may be opened; of a shard nothing.
        below = Roots([os.fsencode(tmp_path / "out" / "deep")], anywhere=False)
        found = container_problem(container, base, below)
        assert (found is None) == (kind == Kind.FOLDER)


def test_a_shard_that_was_cut_loses_only_what_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard = tmp_path / "s.tar"
    put_shard(shard, [(f"{n}.png", png(n)) for n in range(4)])
    built(tmp_path / "idx", shard)
    index = Index(tmp_path / "idx")
    shard.write_bytes(shard.read_bytes()[: index.entry(2).offset + 10])
    with caplog.at_level(logging.WARNING):
        cut = opener(index)
        assert [read(cut, index, place) for place in (0, 1)] == [png(0), png(1)]
        assert reason(cut, index, 2) == reason(cut, index, 3) == "the shard ends before it"
    assert len(caplog.records) == 1 and "s.tar has changed" in caplog.text


def test_a_shard_written_anew_never_gives_other_images(tmp_path: Path) -> None:
    """Same length, same places, other members: only the header before the data can tell."""
    shard = tmp_path / "s.tar"
    put_shard(shard, [(f"{n}.png", png(n)) for n in range(4)])
    built(tmp_path / "idx", shard)
    index = Index(tmp_path / "idx")
    put_shard(shard, [(f"{n}.png", png(n)) for n in (0, 3, 2, 1)])
    anew = opener(index)
    assert [read(anew, index, place) for place in (0, 2)] == [png(0), png(2)]
    for place in (1, 3):
        assert "written anew" in reason(anew, index, place)


def test_what_vanished_and_what_is_no_shard_is_broken(tmp_path: Path) -> None:
    shard = tmp_path / "s.tar"
    put_shard(shard, [("0.png", png(0))])
    built(tmp_path / "idx", shard)
    index = Index(tmp_path / "idx")
    shard.unlink()
    assert reason(opener(index), index, 0) == "no such file or directory"
    shard.mkdir()
    assert reason(opener(index), index, 0) == "is a directory"
    shard.rmdir()
    os.mkfifo(shard)  # which nobody writes to
    assert reason(opener(index), index, 0) == "illegal seek"


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 10), (511, 10), (512, 0xFFFFFFFF), (2**64 - 1, 10)]
)
def test_places_that_no_member_has_are_refused_before_memory_is_taken(
    tmp_path: Path, offset: int, length: int
) -> None:
    put_shard(tmp_path / "s.tar", [("0.png", png(0))])
    container = Container(os.fsencode(tmp_path / "s.tar"), Kind.SHARD, 0, 0)
    with pytest.raises(BrokenImage, match="is no member of a shard"):
        Opener(b"/", Roots([], anywhere=True)).member(
            container, Entry(0, b"0.png", offset, length, 0)
        )


def test_many_threads_read_more_shards_than_stay_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "OPEN_SHARDS", 2)
    for number in range(8):
        put_shard(tmp_path / "in" / f"{number}.tar", [("0.png", png(number))])
    built(tmp_path / "idx", tmp_path / "in")
    index = Index(tmp_path / "idx")
    before = len(os.listdir("/proc/self/fd"))
    shared, wrong = opener(index), list[int]()

    def work(seed: int) -> None:
        for turn in range(200):
            place = (turn * (2 * seed + 1) + seed) % 8
            if read(shared, index, place) != png(place):
                wrong.append(place)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_the_shards_that_stay_open_are_those_read_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is open can still be read when its name is gone."""
    monkeypatch.setattr(opening, "OPEN_SHARDS", 2)
    for number in range(3):
        put_shard(tmp_path / "in" / f"{number}.tar", [("0.png", png(number))])
    built(tmp_path / "idx", tmp_path / "in")
    index = Index(tmp_path / "idx")
    shared = opener(index)
    for place in (0, 1, 0, 2):
        assert read(shared, index, place) == png(place)
    for number in range(3):
        (tmp_path / "in" / f"{number}.tar").unlink()
    assert read(shared, index, 0) == png(0) and read(shared, index, 2) == png(2)
    assert reason(shared, index, 1) == "no such file or directory"


@pytest.mark.parametrize("packed", [True, False])
def test_as_much_is_taken_into_memory_as_may_be_and_no_more(
    tmp_path: Path, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_images(tmp_path / "in", "a.png")
    (tmp_path / "in" / "empty.png").touch()
    put_shard(tmp_path / "s.tar", [("a.png", png(0))])
    built(tmp_path / "idx", tmp_path / ("s.tar" if packed else "in"))
    index = Index(tmp_path / "idx")

    def content(place: int) -> bytes:
        entry = index.entry(place)
        return opener(index).content(index.container(entry.container), entry)

    monkeypatch.setattr(opening, "MAX_MEMBER_BYTES", len(png(0)))
    assert content(0) == png(0)
    if not packed:
        with pytest.raises(BrokenImage, match="it has 0 bytes"):
            content(1)
    monkeypatch.setattr(opening, "MAX_MEMBER_BYTES", len(png(0)) - 1)
    with pytest.raises(BrokenImage, match=f"{len(png(0))} bytes"):
        content(0)


def test_a_few_changed_shards_are_named_and_the_check_is_for_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(7):
        put_shard(tmp_path / "in" / f"{number}.tar", [("0.png", png(number))])
    built(tmp_path / "idx", tmp_path / "in")
    index = Index(tmp_path / "idx")
    for number in range(7):
        os.utime(tmp_path / "in" / f"{number}.tar", ns=(0, 0))
    shared = opener(index)
    with caplog.at_level(logging.WARNING):
        assert [read(shared, index, place) for place in range(7)] == [png(n) for n in range(7)]
    named = [message.split(" ")[0] for message in caplog.messages]
    assert named == [f"in/{number}.tar" for number in range(5)]
