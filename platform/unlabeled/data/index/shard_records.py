"""The images of a shard by the WebDataset convention, as records of an index.

Members of one base name are one sample: a/b.jpg, a/b.cls and a/b.json share the key a/b, and lie
next to each other. Every member whose last extension is an image's is an entry; .cls (a word or a
number) or the key "label" or "cls" of a .json is its label, .cls first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import groupby
from typing import BinaryIO

from unlabeled.data.index.records import MAX_LABEL_BYTES, Noted, Problem, Record
from unlabeled.data.index.remote_files import Fetching, RemoteFiles, is_remote
from unlabeled.data.index.tar_headers import DamagedTar, Member, tar_members
from unlabeled.data.sources.folder import EXTENSIONS

# Larger members are refused when they are indexed and when they are read: no photograph is, and a
# reader takes a member into memory as a whole.
MAX_MEMBER_BYTES = 1 << 28
MAX_SIDECAR_BYTES = 1 << 20
_LABEL_EXTENSIONS = ("cls", "json")
_IMAGE_EXTENSIONS = frozenset(extension[1:] for extension in EXTENSIONS)


def shard_records(path: bytes, noted: Noted) -> Iterator[Record]:
    """The images of one shard, in its order; what cannot be used is noted.

    The names of the shard's members are held in memory, to find those that are given twice.
    """
    name = os.fsdecode(path)
    try:
        with _opened(name) as file:
            status = os.fstat(file.fileno())
            mtime_ns = 0 if is_remote(path) else status.st_mtime_ns  # of a copy, it says nothing
            for members in _samples(file, name, noted):
                label = _label(file, members, name, noted)
                for member in members:
                    if extension(member.name) in _IMAGE_EXTENSIONS:
                        yield Record(
                            path,
                            member.offset,
                            len(path),
                            member.length,
                            member.mark,
                            member.name,
                            label,
                            status.st_size,
                            mtime_ns,
                        )
    except OSError as error:
        noted(Problem("unreadable shard", name, (error.strerror or str(error)).lower()))


def _opened(name: str) -> BinaryIO:
    return RemoteFiles(Fetching()).open(name).stream() if is_remote(name) else open(name, "rb")


def key(name: bytes) -> bytes:
    """What members of one sample share: all before the first dot of the last part."""
    folder, slash, base = name.rpartition(b"/")
    return folder + slash + base.partition(b".")[0]


def extension(name: bytes) -> str:
    """The last extension in lower case, without its dot; empty for hidden files and for none."""
    base = name.rpartition(b"/")[2]
    stem, _, last = base.rpartition(b".")
    return last.decode("ascii", "replace").lower() if stem else ""


def image_members(file: BinaryIO, name: str, noted: Noted) -> Iterator[Member]:
    """The images of one shard, in its order, without their labels; what cannot be used is noted."""
    for member in _usable(file, name, noted):
        if extension(member.name) in _IMAGE_EXTENSIONS:
            yield member


def _samples(file: BinaryIO, name: str, noted: Noted) -> Iterator[list[Member]]:
    """The usable members, key by key."""
    for _, group in groupby(_usable(file, name, noted), key=lambda member: key(member.name)):
        yield list(group)


def _usable(file: BinaryIO, name: str, noted: Noted) -> Iterator[Member]:
    seen: set[bytes] = set()
    try:
        for member in tar_members(file):
            kind = extension(member.name)
            shown = f"{name}/{os.fsdecode(member.name)}"
            if kind not in _IMAGE_EXTENSIONS and kind not in _LABEL_EXTENSIONS:
                continue
            if member.name in seen:
                noted(Problem("duplicate member", shown, "the shard has this name already"))
            elif b"\0" in member.name:
                noted(Problem("unusable name", shown, "its name has a null byte"))
            elif not member.length:
                noted(Problem("unusable member", shown, "it is empty"))
            elif member.length > MAX_MEMBER_BYTES:
                noted(Problem("unusable member", shown, f"it has {member.length} bytes"))
            else:
                seen.add(member.name)
                yield member
    except DamagedTar as error:
        noted(Problem("damaged shard", name, str(error)))


def _label(file: BinaryIO, members: list[Member], name: str, noted: Noted) -> bytes:
    """What the members of a sample say of its class; empty if nothing."""
    for wanted in _LABEL_EXTENSIONS:
        for member in members:
            if extension(member.name) == wanted:
                try:
                    label = _read_label(file, member, wanted)
                except ValueError as error:
                    shown = f"{name}/{os.fsdecode(member.name)}"
                    noted(Problem("unusable label", shown, str(error)))
                    continue
                if label:
                    return label
    return b""


def _read_label(file: BinaryIO, member: Member, kind: str) -> bytes:
    """The label in a .cls or .json; ValueError if it is none."""
    if member.length > MAX_SIDECAR_BYTES:
        raise ValueError(f"it has {member.length} bytes")
    file.seek(member.offset)
    data = file.read(member.length)
    if kind == "cls":
        return _short(data.decode())
    try:
        said = json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    found = (said.get(name) for name in ("label", "cls")) if isinstance(said, dict) else ()
    labels = [v for v in found if isinstance(v, int | str) and not isinstance(v, bool)]
    return _short(str(labels[0])) if labels else b""


def _short(text: str) -> bytes:
    label = text.strip().encode()
    if len(label) > MAX_LABEL_BYTES:
        raise ValueError(f"no label has {len(label)} bytes")
    return label
