from __future__ import annotations

import io
import tarfile
from itertools import chain

import numpy as np
import pytest

from unlabeled.data.index.tar_headers import BLOCK, DamagedTar, Member, tar_members

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
NAMES = ["a.jpg", "./b.jpg", "deep/er/" + "c" * 70 + ".jpg", "../up.jpg", "/etc/passwd", "a b.cls"]
LONG = ["folder/" * 30 + "d.jpg", "\u00e9t\u00e9.png", "e" * 200 + ".json"]


def archive(kind: int, names: list[str]) -> bytes:
    """Files of 0, 1, ... 513, ... bytes among links, folders and devices."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as shard:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            data = bytes([number + 1]) * (number * 257)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
            other = tarfile.TarInfo(f"link-{number}.jpg")
            other.type = [tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.LNKTYPE][
                number % 4
            ]
            other.size = 600  # which is said of the file that is meant; no data follow
            other.linkname = "/etc/passwd" * (1 + 20 * (kind != tarfile.USTAR_FORMAT))
            shard.addfile(other)
    return buffer.getvalue()


def read(data: bytes) -> tuple[list[Member], str | None]:
    """The members, and what ended them if it was no end mark."""
    found: list[Member] = []
    try:
        for member in tar_members(io.BytesIO(data)):
            found.append(member)
    except DamagedTar as error:
        return found, str(error)
    return found, None


@pytest.mark.parametrize("kind", FORMATS)
def test_members_are_those_that_tarfile_finds(kind: int) -> None:
    data = archive(kind, NAMES + LONG * (kind != tarfile.USTAR_FORMAT))
    found, damage = read(data)
    assert damage is None
    with tarfile.open(fileobj=io.BytesIO(data)) as shard:
        files = [m for m in shard if m.isreg()]
        assert [m.name.decode() for m in found] == [m.name for m in files]
        for member, expected in zip(found, files, strict=True):
            content = shard.extractfile(expected)
            assert content is not None
            assert data[member.offset : member.offset + member.length] == content.read()


def test_a_number_too_large_for_octal_digits_is_read() -> None:
    member = tarfile.TarInfo("a.jpg")
    member.size = 3
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\x80" + (3).to_bytes(11, "big")
    header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 8 * 32)
    found, damage = read(bytes(header) + b"abc".ljust(BLOCK, b"\0") + bytes(2 * BLOCK))
    assert damage is None and [(m.offset, m.length) for m in found] == [(BLOCK, 3)]


@pytest.mark.parametrize("kind", FORMATS)
def test_wherever_it_is_cut_all_whole_members_are_found_and_the_cut_is_told(kind: int) -> None:
    data = archive(kind, NAMES)
    members, _ = read(data)
    end = max(m.offset + -(-m.length // BLOCK) * BLOCK for m in members)
    for cut in chain(range(0, end, 100), (m.offset + m.length for m in members)):
        found, damage = read(data[:cut])
        assert found == [m for m in members if m.offset + m.length <= cut]
        assert damage is not None


def test_damage_in_a_header_is_told_and_nothing_behind_it_is_believed() -> None:
    data = archive(tarfile.GNU_FORMAT, NAMES)
    members, _ = read(data)
    for number, member in enumerate(members):
        header = member.offset - BLOCK
        for place in (header, header + 124, header + 150, header + 300):
            wrong = bytearray(data)
            wrong[place] ^= 1
            found, damage = read(bytes(wrong))
            assert found == members[:number]
            assert damage is not None and str(header) in damage


def test_random_bytes_never_give_a_member_outside_of_the_archive() -> None:
    data = archive(tarfile.PAX_FORMAT, NAMES + LONG)
    random = np.random.default_rng(0)
    for _ in range(300):
        wrong = bytearray(data)
        start = int(random.integers(0, len(data) // BLOCK)) * BLOCK
        for place in random.integers(start, start + BLOCK, 4):
            wrong[place] = random.integers(0, 256)
        block = wrong[start : start + BLOCK]  # a checksum that holds, so that the rest is believed
        wrong[start + 148 : start + 156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 256)
        for member in read(bytes(wrong))[0]:
            assert 0 <= member.offset <= member.offset + member.length <= len(data)


def test_an_extended_header_of_gigabytes_is_refused() -> None:
    member = tarfile.TarInfo("a.jpg")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 2 << 20
    data = member.tobuf(tarfile.GNU_FORMAT) + bytes(2 << 20)
    assert read(data) == ([], f"has an extended header of {2 << 20} bytes at byte 0")
