"""Whether a data set on disk is whole: all files that its lists name, as many as published."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from unlabeled.data.decode import BrokenImage, decode_file
from unlabeled.errors import DataError

Tell = Callable[[str, int, int | None], None]
"""Told of progress: what, how many so far, of how many (None: not known)."""

_SHOWN = 5
"""Files of each sort that are named."""

_JPEG, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"
_TAIL = 64
"""Bytes at the end of an image that are looked at."""


def untold(what: str, done: int, total: int | None) -> None:
    """Progress that nobody watches."""


class ExpectedFiles:
    """Looks at what should be below `root`, and gathers what is not.

    layout: what the folder should look like, for people. counts: whether the numbers of images must
    be the published ones. Nothing is written, fetched or unpacked.
    """

    def __init__(
        self, root: Path, layout: str, *, counts: bool = True, tell: Tell = untold
    ) -> None:
        self.root, self._layout, self._counts, self._tell = root, layout, counts, tell
        self.faults: list[str] = []

    def fault(self, text: str) -> None:
        """One more thing that is wrong."""
        self.faults.append(text)

    def count(self, what: str, found: int, published: int) -> None:
        """As many as published, unless a part is enough."""
        if self._counts and found != published:
            self.fault(f"{what}: {found:,}, published are {published:,}")

    def files(self, what: str, names: Iterable[str]) -> int:
        """All of these are files below the root and not empty; how many were asked for."""
        return self._look(what, names, _file_fault)

    def images(self, what: str, names: Iterable[str], *, decode: bool = False) -> int:
        """As `files`, and none is damaged as far as a glance tells; how many were asked for.

        A JPEG or PNG that ends as it should is taken for whole, unless `decode` asks for every
        pixel. Others are decoded, and those that cannot be, such as the ones that a download or a
        full disk cut short, are faults.
        """
        return self._look(what, names, _decoding_fault if decode else _image_fault)

    def _look(self, what: str, names: Iterable[str], fault_of: Callable[[Path], str | None]) -> int:
        asked = 0
        found: dict[str, list[str]] = {}
        for name in names:
            asked += 1
            kind = fault_of(self.root / name)
            if kind is not None:
                found.setdefault(kind, []).append(name)
            self._tell(what, asked, None)
        for kind, those in sorted(found.items(), reverse=True):
            self.fault(f"{what}: {len(those):,} of {asked:,} {kind}: {_some(those)}")
        return asked

    def checksums(self, what: str, md5: Mapping[str, str]) -> None:
        """All of these files are there, with this content."""
        missing, other = [], []
        for place, (name, wanted) in enumerate(md5.items(), start=1):
            try:
                if digest(self.root / name, "md5") != wanted:
                    other.append(name)
            except OSError:
                missing.append(name)
            self._tell(what, place, len(md5))
        if missing:
            self.fault(f"{what}: {len(missing)} of {len(md5)} missing: {_some(missing)}")
        if other:
            self.fault(
                f"{what}: {len(other)} of {len(md5)} are not the published ones (cut short?): "
                f"{_some(other)}"
            )

    def listing(self, folder: str, ending: str = "") -> list[str]:
        """Sorted visible entries of a folder with this ending, in small or capital letters.

        A folder that cannot be listed is a fault, and none are there.
        """
        try:
            entries = os.listdir(self.root / folder)
        except OSError as error:
            self.fault(f"{folder}: cannot be listed ({_reason(error)})")
            return []
        return sorted(e for e in entries if e[0] != "." and e.lower().endswith(ending))

    def lines(self, name: str) -> list[str]:
        """The lines of a text file, stripped, without empty ones; none if it is not there."""
        try:
            text = (self.root / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self.fault(f"{name}: cannot be read ({_reason(error)})")
            return []
        return [line.strip() for line in text.splitlines() if line.strip()]

    def json(self, name: str, *keys: str) -> dict[str, Any]:
        """A JSON object that has these keys, each a list; empty if it is not there or damaged."""
        try:
            content = json.loads((self.root / name).read_bytes())
        except (OSError, ValueError) as error:
            self.fault(f"{name}: cannot be read ({_reason(error)})")
            return {}
        lacking = [
            key
            for key in keys
            if not isinstance(content, dict) or not isinstance(content.get(key), list)
        ]
        if lacking:
            self.fault(f"{name}: has no list {', '.join(lacking)}")
            return {}
        found: dict[str, Any] = content
        return found

    def require(self, remedy: str = "") -> None:
        """DataError with all faults, if there are any; `remedy` says how to get the files."""
        if self.faults:
            raise DataError(
                f"{self.root} is not complete:\n  "
                + "\n  ".join(self.faults)
                + f"\nexpected:\n{self._layout}"
                + (f"\n{remedy}" if remedy else "")
            )


def digest(path: Path, kind: str) -> str:
    """The checksum of a file, in hexadecimal; `kind` as hashlib names it."""
    found = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()


def _file_fault(path: Path) -> str | None:
    try:
        return "empty" if os.stat(path).st_size == 0 else None
    except OSError:
        return "missing"


def _image_fault(path: Path) -> str | None:
    try:
        status = os.stat(path)
        if status.st_size == 0:
            return "empty"
        if stat.S_ISREG(status.st_mode) and _ends_well(path, status.st_size):
            return None
    except OSError:
        return "missing"
    return _decoding_fault(path)


def _decoding_fault(path: Path) -> str | None:
    kind = _file_fault(path)
    if kind is not None:
        return kind
    try:
        decode_file(path)
    except BrokenImage:
        return "damaged or cut short"
    return None


def _ends_well(path: Path, size: int) -> bool:
    """Whether it is a JPEG or PNG with its end mark.

    What is cut short ends in the midst of compressed data, where neither mark can stand.
    """
    with path.open("rb", buffering=0) as file:
        head = file.read(len(_PNG))
        file.seek(max(0, size - _TAIL))
        tail = file.read(_TAIL)
    if head.startswith(_JPEG):
        return tail.rstrip(b"\0\r\n ").endswith(_JPEG_END)
    return head == _PNG and tail.endswith(_PNG_END)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _reason(error: Exception) -> str:
    return (error.strerror or "cannot be read") if isinstance(error, OSError) else str(error)
