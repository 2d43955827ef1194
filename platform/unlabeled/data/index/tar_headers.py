"""Where the members of a tar archive lie, told from its headers; nothing is extracted.

Layout: POSIX.1-2017 pax and ustar, GNU tar's long names and base-256 numbers. An archive is not
trusted: names are bytes and never paths, links and devices are passed over, numbers are checked
against the file's size, and extended headers may not be larger than a megabyte.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

BLOCK = 512
MAX_EXTENDED_BYTES = 1 << 20
_REGULAR = (b"0", b"\0", b"7")
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, pipes
_NAME, _SIZE, _CHECKSUM, _TYPE = slice(0, 100), slice(124, 136), slice(148, 156), slice(156, 157)
_MAGIC, _PREFIX = slice(257, 263), slice(345, 500)


class DamagedTar(Exception):
    """The archive cannot be read from here on; the message says where and why."""


class Member(NamedTuple):
    """A regular file in an archive: its data are the bytes offset..offset+length-1."""

    name: bytes
    offset: int
    length: int
    mark: int
    """CRC-32 of the 512 bytes before the data."""


def mark_of(header: bytes) -> int:
    """What stands for a header block in an index."""
    return zlib.crc32(header)


def tar_members(file: BinaryIO) -> Iterator[Member]:
    """The regular files of an archive, in order; DamagedTar at the first byte that makes no sense.

    Members that lie in the file as a whole come before the error, also where the archive was cut.
    """
    end = file.seek(0, os.SEEK_END)
    place, extended = 0, _Extended()
    while True:
        file.seek(place)
        block = file.read(BLOCK)
        if not block:
            raise DamagedTar(f"ends at byte {place} without the mark of an archive's end")
        if not block.strip(b"\0"):
            return
        if len(block) < BLOCK or not _sums_up(block):
            raise DamagedTar(f"has no valid header at byte {place}")
        kind = block[_TYPE]
        length = _number(block[_SIZE])
        if kind in _REGULAR and extended.size is not None:
            length = extended.size
        if length is None:
            raise DamagedTar(f"has no valid header at byte {place}")
        if kind in _WITHOUT_DATA:
            length = 0
        start = place + BLOCK + (_sparse_map_bytes(file, block) if kind == b"S" else 0)
        if start + length > end:
            raise DamagedTar(f"ends at byte {end}, in the middle of the member at byte {place}")
        place = start + -(-length // BLOCK) * BLOCK
        if kind in (b"L", b"K", b"x", b"g"):
            extended.take(kind, _extended_data(file, start, length))
        else:
            if kind in _REGULAR and not extended.sparse:
                name = extended.name or _plain_name(block)
                yield Member(name, start, length, mark_of(block))
            extended = _Extended()


class _Extended:
    """What headers before a member's own say of it."""

    def __init__(self) -> None:
        self.name: bytes | None = None
        self.size: int | None = None
        self.sparse = False

    def take(self, kind: bytes, data: bytes) -> None:
        if kind == b"L":
            self.name = data.rstrip(b"\0")
        elif kind == b"x":
            for key, value in _pax_records(data):
                if key == b"path":
                    self.name = value
                elif key == b"size" and value.isdigit():
                    self.size = int(value[:20])
                elif key.startswith(b"GNU.sparse."):
                    self.sparse = True


def _extended_data(file: BinaryIO, start: int, length: int) -> bytes:
    if length > MAX_EXTENDED_BYTES:
        raise DamagedTar(f"has an extended header of {length} bytes at byte {start - BLOCK}")
    file.seek(start)
    return file.read(length)


def _sparse_map_bytes(file: BinaryIO, block: bytes) -> int:
    """How much map of GNU tar's old sparse format stands between a header and its data."""
    length, more = 0, block[482]
    while more:
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            break
        length, more = length + BLOCK, block[504]
    return length


def _pax_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records `<length> <key>=<value>\\n`, as far as they follow each other."""
    place = 0
    while place < len(data):
        digits = data[place : place + 8].partition(b" ")[0]
        if not digits.isdigit() or int(digits) <= len(digits) + 2:
            return
        record = data[place + len(digits) + 1 : place + int(digits) - 1]
        key, _, value = record.partition(b"=")
        yield key, value
        place += int(digits)


def _plain_name(block: bytes) -> bytes:
    name = block[_NAME].partition(b"\0")[0]
    prefix = block[_PREFIX].partition(b"\0")[0] if block[_MAGIC] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _number(field: bytes) -> int | None:
    """An octal or base-256 number; None for anything else, negative ones included."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if field[0] > 0x80 or digits.strip(b"01234567"):
        return None
    return int(digits or b"0", 8)


def _sums_up(block: bytes) -> bool:
    """Whether the header's checksum holds: the sum of its bytes, its own counting as spaces."""
    said = _number(block[_CHECKSUM])
    return said == sum(block) - sum(block[_CHECKSUM]) + 8 * 0x20
