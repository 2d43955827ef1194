"""Whether a data set on disk is whole: all files that its lists name, as many as published."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unlabeled.errors import DataError

_SHOWN = 5
"""Files of each sort that are named."""


class ExpectedFiles:
    """Looks at what should be below `root`, and gathers what is not.

    layout: what the folder should look like, for people. counts: whether the numbers of images must
    be the published ones. Nothing is written, fetched or unpacked.
    """

    def __init__(self, root: Path, layout: str, *, counts: bool = True) -> None:
        self.root, self._layout, self._counts = root, layout, counts
        self._faults: list[str] = []

    def fault(self, text: str) -> None:
        """One more thing that is wrong."""
        self._faults.append(text)

    def count(self, what: str, found: int, published: int) -> None:
        """As many as published, unless a part is enough."""
        if self._counts and found != published:
            self.fault(f"{what}: {found:,}, published are {published:,}")

    def files(self, what: str, names: Iterable[str]) -> int:
        """All of these are files below the root and not empty; how many were asked for."""
        asked, missing, empty = 0, [], []
        for name in names:
            asked += 1
            try:
                if os.stat(self.root / name).st_size == 0:
                    empty.append(name)
            except OSError:
                missing.append(name)
        for kind, found in (("missing", missing), ("empty", empty)):
            if found:
                more = ", ..." if len(found) > _SHOWN else ""
                listed = ", ".join(found[:_SHOWN])
                self.fault(f"{what}: {len(found):,} of {asked:,} {kind}: {listed}{more}")
        return asked

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

    def require(self) -> None:
        """DataError with all faults, if there are any."""
        if self._faults:
            raise DataError(
                f"{self.root} is not complete:\n  "
                + "\n  ".join(self._faults)
                + f"\nexpected:\n{self._layout}"
            )


def _reason(error: Exception) -> str:
    return (error.strerror or "cannot be read") if isinstance(error, OSError) else str(error)
