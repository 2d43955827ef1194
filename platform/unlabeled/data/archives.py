"""Unpacking a stranger's archive: regular files alone, below one folder, all of them or none."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from unlabeled.data.expected_files import Tell, untold
from unlabeled.data.index.tar_headers import MAX_EXTENDED_BYTES
from unlabeled.errors import DataError, EnvironmentProblem

Place = Callable[[str], str | None]
"""Where a member goes, by its name in the archive; None leaves it out."""

MOST_TIMES = 100
"""How much larger than the archive its files may be: those of pictures are no larger at all."""
MEMBER_BYTES = 512
"""What a member counts beside its content: files without any fill a disk too."""

# What damaged bytes make the readers of tar, gzip, xz and zip raise.
_DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError),
    *(EOFError, ValueError, NotImplementedError, RecursionError),
)


def unpack(archive: Path, folder: Path, place: Place, *, tell: Tell = untold) -> int:
    """Write the files of a .tar (.gz, .xz) or .zip below `folder`; how many there were.

    They are unpacked beside and moved once all of them are there: of a damaged or hostile archive
    nothing stays. Owners, modes and dates are not taken over; files of the same name are replaced.
    DataError: it is no archive, damaged or cut short, encrypted, made to fill a disk, or it has a
    link, a device or a path that leads out of the folder. EnvironmentProblem: the disk refuses.
    """
    beside = folder / f".{archive.name}.unpacked"
    try:
        if beside.exists():
            shutil.rmtree(beside)
        count, room = 0, MOST_TIMES * archive.stat().st_size
        with _members(archive) as members:
            for name, file in members:
                target = place(name)
                if target is not None:
                    room -= MEMBER_BYTES + _write(file, beside / _below(target, archive), room)
                    count += 1
                if room < 0:
                    raise _refused(archive, name, f"over {MOST_TIMES} times as large as it")
                tell(f"{archive.name}: files", count, None)
        if not count:
            raise DataError(f"{archive} holds none of the files that it should")
        _move(beside, folder)
    except _DAMAGED as error:
        raise DataError(
            f"{archive} is damaged or half-downloaded ({str(error) or type(error).__name__}); "
            "remove it and fetch it again"
        ) from error
    except OSError as error:
        raise EnvironmentProblem(f"cannot unpack {archive} in {folder}: {error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return count


@contextlib.contextmanager
def _members(archive: Path) -> Iterator[Iterator[tuple[str, IO[bytes]]]]:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as zipped:
            yield _of_zip(zipped, archive)
    else:
        with tarfile.open(archive, "r:*", tarinfo=_Bounded) as tar:
            yield _of_tar(tar, archive)


class _Bounded(tarfile.TarInfo):
    """A member whose names and attributes fit into memory: tarfile reads them whole."""

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if self.type not in tarfile.REGULAR_TYPES and self.size > MAX_EXTENDED_BYTES:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


def _of_tar(tar: tarfile.TarFile, archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    for member in tar:
        _below(member.name, archive)
        if member.isdir():
            continue
        file = tar.extractfile(member) if member.isreg() else None
        if file is None:
            raise _refused(archive, member.name, "a link or a device")
        yield member.name, file
    # The checksum of .gz and .xz stands at the end, and is looked at only where that is read.
    assert tar.fileobj is not None
    while tar.fileobj.read(1 << 20):
        pass


def _of_zip(zipped: zipfile.ZipFile, archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    for member in zipped.infolist():
        _below(member.filename, archive)
        if member.is_dir():
            continue
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):  # 0: made where there are no such kinds
            raise _refused(archive, member.filename, "a link or a device")
        if member.flag_bits & 1:
            raise _refused(archive, member.filename, "encrypted")
        with zipped.open(member) as file:
            yield member.filename, file


def _below(name: str, archive: Path) -> str:
    """The name, if it stays below any folder that it is put in."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or name[1:2] == ":":
        raise _refused(archive, name, "a path that could lead out of the folder")
    return name


def _refused(archive: Path, name: str, why: str) -> DataError:
    return DataError(f"{archive} is not unpacked: its member {name!r} is {why}")


def _write(source: IO[bytes], target: Path, room: int) -> int:
    """Copy until the end or until there are more bytes than `room`; how many were copied."""
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with target.open("wb") as file:
        while written <= room and (piece := source.read(1 << 20)):
            file.write(piece)
            written += len(piece)
    return written


def _move(beside: Path, folder: Path) -> None:
    for path in sorted(beside.rglob("*")):
        target = folder / path.relative_to(beside)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif target.is_dir():
            raise IsADirectoryError(f"{target} is a folder")
        else:
            shutil.move(path, target)  # also to another disk, where a folder is a link to one
