from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests_support.shards import png, put_shard
from unlabeled.data.index.records import Problem, Record
from unlabeled.data.index.shard_records import MAX_MEMBER_BYTES, extension, key, shard_records


def read(path: Path) -> tuple[list[Record], list[Problem]]:
    noted: list[Problem] = []
    return list(shard_records(os.fsencode(path), noted.append)), noted


def test_labels_are_those_of_the_members_with_the_same_key(tmp_path: Path) -> None:
    members = [
        ("a/1.jpg", b"x"),
        ("a/1.cls", b" 7\n"),
        ("b/1.json", b'{"label": "cat"}'),
        ("b/1.PNG", b"y"),
        ("2.jpg", b"z"),
        ("3.json", b'{"cls": 4, "width": 3}'),
        ("3.cls", b"wolf"),
        ("3.left.jpg", b"l"),
        ("3.right.jpg", b"r"),
        ("4.txt", b"no image"),
        ("5.cls", b"9"),
    ]
    put_shard(tmp_path / "a.tar", members)
    found, noted = read(tmp_path / "a.tar")
    assert [(record.member, record.label) for record in found] == [
        (b"a/1.jpg", b"7"),
        (b"b/1.PNG", b"cat"),
        (b"2.jpg", b""),
        (b"3.left.jpg", b"wolf"),
        (b"3.right.jpg", b"wolf"),
    ]
    assert not noted
    shard = (tmp_path / "a.tar").read_bytes()
    content = dict(members)
    for record in found:
        data = shard[record.offset : record.offset + record.length]
        assert data == content[record.member.decode()]


@pytest.mark.parametrize(
    ("name", "expected"),
    [(b"a.b/c.d.jpg", (b"a.b/c", "jpg")), (b"x", (b"x", "")), (b"a/.hidden", (b"a/", ""))],
)
def test_keys_end_at_the_first_dot_of_the_last_part(
    name: bytes, expected: tuple[bytes, str]
) -> None:
    assert (key(name), extension(name)) == expected


def test_what_cannot_be_used_is_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    members = [
        ("1.jpg", png(1)),
        ("2.jpg", b""),
        ("1.jpg", png(2)),
        ("3.json", b'{"label": '),
        ("3.jpg", png(3)),
        ("4.cls", b"\xff\xfe"),
        ("4.jpg", png(4)),
        ("5.json", b"[" * 100_000),
        ("5.jpg", png(5)),
    ]
    put_shard(tmp_path / "a.tar", members)
    found, noted = read(tmp_path / "a.tar")
    assert [r.member for r in found] == [b"1.jpg", b"3.jpg", b"4.jpg", b"5.jpg"]
    assert [(p.kind, p.name.removeprefix(f"{tmp_path}/a.tar/")) for p in noted] == [
        ("unusable member", "2.jpg"),
        ("duplicate member", "1.jpg"),
        ("unusable label", "3.json"),
        ("unusable label", "4.cls"),
        ("unusable label", "5.json"),
    ]
    assert all(not record.label for record in found)


def test_hostile_names_are_names_and_nothing_else(tmp_path: Path) -> None:
    hostile = ["../../up.jpg", "/etc/shadow.jpg", "a\nb.jpg", "\x1b[2J.jpg", "a/../b.jpg"]
    put_shard(tmp_path / "in" / "a.tar", [(name, png(1)) for name in hostile])
    before = sorted(tmp_path.rglob("*"))
    found, noted = read(tmp_path / "in" / "a.tar")
    assert [record.member.decode() for record in found] == hostile and not noted
    assert {record.path for record in found} == {os.fsencode(tmp_path / "in" / "a.tar")}
    assert sorted(tmp_path.rglob("*")) == before


def test_a_member_too_large_for_memory_is_left_out(tmp_path: Path) -> None:
    put_shard(tmp_path / "a.tar", [("1.jpg", b"")])
    data = bytearray((tmp_path / "a.tar").read_bytes()[:512])
    data[124:136] = b"%011o\0" % (MAX_MEMBER_BYTES + 1)
    data[148:156] = b"%06o\0 " % (sum(data) - sum(data[148:156]) + 8 * 32)
    with (tmp_path / "a.tar").open("wb") as file:
        file.write(data)
        file.truncate(512 + MAX_MEMBER_BYTES + 512 + 1024)  # of holes
    found, noted = read(tmp_path / "a.tar")
    assert not found and [p.kind for p in noted] == ["unusable member"]


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    found, noted = read(tmp_path / "no.tar")
    assert not found
    assert noted == [Problem("unreadable shard", f"{tmp_path}/no.tar", "no such file or directory")]
