"""What the scripts that prepare data sets share: options, progress, downloads and last words."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unlabeled.data.expected_files import ExpectedFiles
from unlabeled.data.published import Published
from unlabeled.data.whole_files import write_table
from unlabeled.errors import ConfigError

REPORT_SECONDS = 5.0
"""How often a line says how far it is."""


@dataclass(frozen=True)
class Part:
    """What can be missing by itself: how it is looked at, and what brings it."""

    check: Callable[[ExpectedFiles], None]
    published: Sequence[Published] = ()


def preparation(
    about: str | None, root: str, *, counted: bool = True, downloads: bool = False
) -> argparse.ArgumentParser:
    """The options that all of them have; `about` is the script's docstring.

    counted: there are published numbers of images. downloads: there are addresses.
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=lambda path: Path(path).expanduser(), help=root)
    if counted:
        parser.add_argument(
            "--part", action="store_true", help="fewer images than published are fine"
        )
    if downloads:
        parser.add_argument(
            "--download", action="store_true", help="fetch and unpack what is missing"
        )
        parser.add_argument(
            "--mirror", help="address of a folder of the same archives, instead of the official one"
        )
    return parser


def expected_files(given: argparse.Namespace, layout: str) -> ExpectedFiles:
    """Where faults are gathered; says on stderr how far it is."""
    return ExpectedFiles(
        given.root, layout, counts=not getattr(given, "part", True), tell=_Progress()
    )


def prepare(given: argparse.Namespace, layout: str, parts: Iterable[Part]) -> None:
    """Look at every part, fetch what is missing if --download is given, and look again.

    DataError names all that is missing, and where it is to be had.
    """
    if given.mirror is not None and not given.download:
        raise ConfigError("--mirror says where --download fetches from; give both")
    summary = expected_files(given, layout)
    offered: list[str] = []
    for part in parts:
        seen = expected_files(given, layout)
        part.check(seen)
        if seen.faults and given.download and part.published:
            for each in part.published:
                each.obtain(given.root, given.mirror, _Progress())
            seen = expected_files(given, layout)
            part.check(seen)
        summary.faults += seen.faults
        offered += [each.url for each in part.published] if seen.faults else []
    summary.require(
        "--download fetches and unpacks:\n  " + "\n  ".join(offered)
        if offered and not given.download
        else ""
    )


def write_labels(
    given: argparse.Namespace, name: str, rows: Sequence[tuple[str, int, str]], images: Path
) -> None:
    """Write the table (path, label, split) that dataset=csv reads, and say how it is used."""
    table: Path = given.table or given.root / name
    write_table(table.expanduser(), ("path", "label", "split"), rows)
    print(f"complete: {len(rows):,} images; {table}")
    print(
        f"dataset=csv dataset.path={table} dataset.root={images} dataset.label_column=label "
        "dataset.split_column=split"
    )


class _Progress:
    """A line on stderr now and then: what, and how many so far."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._said >= REPORT_SECONDS:
            self._said = now
            of = "" if total is None else f" of {total:,}"
            print(f"{what}: {done:,}{of}", file=sys.stderr, flush=True)
