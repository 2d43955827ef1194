"""The folder that a data set should lie in, and what is said where it does not."""

from __future__ import annotations

from pathlib import Path

from unlabeled.data.sources.base import Source
from unlabeled.errors import DataError


def existing_folder(path: str, field: str, expected: str = "") -> Path:
    """The folder, ~ expanded; DataError with where its path ends to exist, and what is expected."""
    folder = Path(path).expanduser()
    more = f"; {expected}" if expected else ""
    if not folder.exists():
        raise DataError(f"{field}: {path} does not exist{_nearest(folder)}{more}")
    if not folder.is_dir():
        raise DataError(
            f"{field}: {path} is a file; {expected or 'a folder of images is expected'}"
        )
    return folder


def nothing_decoded(source: Source, name: str, reason: str) -> DataError:
    """That no image of a data set can be used, with one of them and the folder it is sought in."""
    root = getattr(source, "root", None)
    below = "" if root is None else f"; names start at {root}, which dataset.root may change"
    return DataError(
        f"none of the {len(source):,} images can be decoded, the first of them {name} "
        f"({reason}){below}"
    )


def _nearest(folder: Path) -> str:
    """Where along the path the trouble starts."""
    for parent in folder.parents:
        if parent.exists():
            return f" ({parent} does)"
    return ""
