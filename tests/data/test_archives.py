"""Archives of strangers: all of their files or none, and nothing outside the folder."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from unlabeled.data.archives import unpack
from unlabeled.errors import DataError

FILES = {"top/a.jpg": b"a" * 4000, "top/deep/b.jpg": bytes(range(256)) * 40, "top/note.txt": b"n"}


def tar(path: Path, files: dict[str, bytes], *more: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o6777
            archive.addfile(member, io.BytesIO(content))
        for member in more:
            archive.addfile(member)
    return path


def zipped(path: Path, files: dict[str, bytes], kinds: dict[str, int] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = ((kinds or {}).get(name, stat.S_IFREG) | 0o644) << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


def below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("name", "pack"), [("x.tar", tar), ("x.tgz", tar), ("x.tar.gz", tar), ("x.zip", zipped)]
)
def test_files_go_where_they_are_told(
    tmp_path: Path, name: str, pack: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    archive = pack(tmp_path / name, FILES)
    out = tmp_path / "out"
    (out / "top").mkdir(parents=True)
    (out / "top" / "a.jpg").write_bytes(b"half of it")
    (out / "mine").write_bytes(b"mine")
    assert unpack(archive, out, lambda member: member) == 3
    assert below(out) == FILES | {"mine": b"mine"}
    assert not (out / "top" / "a.jpg").stat().st_mode & 0o6111
    jpg = lambda member: f"jpg/{Path(member).name}" if member.endswith(".jpg") else None  # noqa: E731
    assert unpack(archive, tmp_path / "flat", jpg) == 2
    assert sorted(below(tmp_path / "flat")) == ["jpg/a.jpg", "jpg/b.jpg"]


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


HOSTILE = {
    "up.tar": lambda p: tar(p, {**FILES, "../out.txt": b"x"}),
    "inner_up.tgz": lambda p: tar(p, {**FILES, "a/../../out.txt": b"x"}),
    "absolute.tar": lambda p: tar(p, {**FILES, "/tmp/unlabeled_escape.txt": b"x"}),
    "symlink.tar": lambda p: tar(p, FILES, member("link", tarfile.SYMTYPE, "/etc")),
    "hardlink.tar": lambda p: tar(p, FILES, member("link", tarfile.LNKTYPE, "top/a.jpg")),
    "device.tar": lambda p: tar(p, FILES, member("null", tarfile.CHRTYPE)),
    "pipe.tgz": lambda p: tar(p, FILES, member("pipe", tarfile.FIFOTYPE)),
    "up.zip": lambda p: zipped(p, {**FILES, "../out.txt": b"x"}),
    "drive.zip": lambda p: zipped(p, {**FILES, "C:out.txt": b"x"}),
    "backslash.zip": lambda p: zipped(p, {**FILES, "..\\out.txt": b"x"}),
    "bomb.zip": lambda p: zipped(p, {**FILES, "bomb.jpg": bytes(1 << 24)}),
    "bomb.tgz": lambda p: tar(p, {**FILES, "bomb.jpg": bytes(1 << 24)}),
    "symlink.zip": lambda p: zipped(p, {**FILES, "l": b"/etc"}, {"l": stat.S_IFLNK}),
}


def test_headers_that_fill_memory_and_files_that_fill_a_disk(tmp_path: Path) -> None:
    """Tarfile reads a header whole, and one within another by calling itself."""
    huge = tarfile.TarInfo("././@LongLink")
    huge.type, huge.size = tarfile.GNUTYPE_LONGNAME, 1 << 26
    nested = tarfile.TarInfo("././@LongLink")
    nested.type, nested.size = tarfile.GNUTYPE_LONGNAME, 1
    many = b"".join(tarfile.TarInfo(f"{n}.jpg").tobuf() for n in range(20_000))
    end = bytes(1024)
    for content, told in (
        (huge.tobuf() + bytes(1 << 26) + end, "is damaged"),
        ((nested.tobuf() + b"a".ljust(512, b"\0")) * 3000 + end, "is damaged"),
        (many + end, "over 100 times as large as it"),
    ):
        (tmp_path / "x.tgz").write_bytes(gzip.compress(content))
        tracemalloc.start()
        with pytest.raises(DataError, match=told):
            unpack(tmp_path / "x.tgz", tmp_path / "out", lambda member: member)
        assert tracemalloc.get_traced_memory()[1] < 1 << 25
        tracemalloc.stop()
        assert not below(tmp_path / "out")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_leaves_nothing(tmp_path: Path, name: str) -> None:
    archive = HOSTILE[name](tmp_path / name)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataError, match="is not unpacked: its member"):
        unpack(archive, out, lambda member: member)
    assert below(tmp_path) == {name: archive.read_bytes()}
    assert not Path("/tmp/unlabeled_escape.txt").exists()


@pytest.mark.parametrize(("name", "pack"), [("x.tar", tar), ("x.tgz", tar), ("x.zip", zipped)])
def test_half_an_archive_is_said_to_be_one_and_leaves_nothing(
    tmp_path: Path, name: str, pack: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    whole = pack(tmp_path / name, FILES).read_bytes()
    out = tmp_path / "out"
    out.mkdir()
    for length in (0, 1, 20, len(whole) // 3, len(whole) // 2):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(DataError, match="is damaged or half-downloaded"):
            unpack(tmp_path / name, out, lambda member: member)
        assert below(out) == {}
    (tmp_path / name).write_bytes(b"<html>404</html>" * 99)
    with pytest.raises(DataError, match="is damaged or half-downloaded"):
        unpack(tmp_path / name, out, lambda member: member)


@pytest.mark.parametrize(("name", "pack"), [("x.tgz", tar), ("x.zip", zipped)])
def test_a_changed_byte_is_noticed_wherever_it_changes_a_file(
    tmp_path: Path, name: str, pack: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 2000, dtype=np.uint8).tobytes()
    whole = pack(tmp_path / name, {"a.jpg": noise, "b.jpg": noise[::-1]}).read_bytes()
    noticed = 0
    for place in range(0, len(whole), 97):
        (tmp_path / name).write_bytes(
            whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :]
        )
        out = tmp_path / str(place)
        try:
            unpack(tmp_path / name, out, lambda member: member)
            assert sorted(below(out).values()) == sorted([noise, noise[::-1]]), place
        except DataError:
            noticed += 1
            assert not out.exists() or below(out) == {}
    assert noticed > 30


def test_an_archive_of_something_else_is_no_success(tmp_path: Path) -> None:
    archive = tar(tmp_path / "x.tar", FILES)
    with pytest.raises(DataError, match="holds none of the files that it should"):
        unpack(archive, tmp_path / "out", lambda member: None)


def test_what_a_kill_left_is_no_part_of_the_next_try(tmp_path: Path) -> None:
    archive, out = tar(tmp_path / "x.tar", FILES), tmp_path / "out"
    (out / ".x.tar.unpacked").mkdir(parents=True)
    (out / ".x.tar.unpacked" / "old.jpg").write_bytes(b"old")
    unpack(archive, out, lambda member: member)
    assert below(out) == FILES
