"""A list of the images below a folder, as dataset=file_list or dataset=csv reads it.

    python extra_scripts/make_filelist.py photographs photographs.txt
    python extra_scripts/make_filelist.py photographs photographs.npy --labels labels.txt
    python extra_scripts/make_filelist.py photographs photographs.csv --label

The kind of list follows from its name: text (one path a line), .npy (an array of strings) or .csv
(columns path and, with --label, label). Paths are relative to the folder, sorted; labels are the
names of the first subfolders. Hidden entries are left out; links are followed only inside the
folder, and what leads out of it is counted. The list is read back before the command ends: a file
name that a kind of list cannot hold, such as one with a line break in a text, is an error.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unlabeled.cli.script import run_script
from unlabeled.data.sources.base import Source
from unlabeled.data.sources.csv import Csv
from unlabeled.data.sources.file_list import FileList
from unlabeled.data.sources.folder import EXTENSIONS
from unlabeled.data.whole_files import write_file, write_table
from unlabeled.errors import ConfigError, DataError

KINDS = (".txt", ".npy", ".csv")


def image_paths(
    root: str, left_out: Counter[str], below: str = "", above: tuple[str, ...] = ()
) -> Iterator[str]:
    """Images below a folder, relative to it, sorted; `left_out` counts what lies outside."""
    real = os.path.realpath(os.path.join(root, below))
    if real in above:
        return  # a link back to a folder that it lies in
    with os.scandir(real) as listing:
        entries = sorted(entry.name for entry in listing if not entry.name.startswith("."))
    for name in entries:
        path = os.path.join(below, name)
        full = os.path.join(root, path)
        folder = os.path.isdir(full)
        if not folder and os.path.splitext(name)[1].lower() not in EXTENSIONS:
            continue
        if os.path.islink(full) and not inside(full, root):
            left_out["links out of the folder"] += 1
        elif folder:
            yield from image_paths(root, left_out, path, (*above, real))
        elif os.path.isfile(full):
            yield path
        else:
            left_out["links to nothing, pipes and the like"] += 1


def inside(path: str, root: str) -> bool:
    """Whether a path, its links followed, lies below the root."""
    real, top = os.path.realpath(path), os.path.realpath(root)
    return os.path.commonpath([real, top]) == top


def first_folders(paths: list[str]) -> list[str]:
    """The label of every path; DataError if one lies in no subfolder."""
    for path in paths:
        if os.sep not in path:
            raise DataError(f"{path} lies in no subfolder, so it has no label; leave labels out")
    return [path.split(os.sep, 1)[0] for path in paths]


def write_lines(target: Path, lines: list[str]) -> None:
    """A text of one entry a line, or an array of byte strings."""
    encoded = [os.fsencode(line) for line in lines]
    if target.suffix == ".npy":
        write_file(target, lambda file: np.save(file, np.array(encoded), allow_pickle=False))
    else:
        write_file(target, lambda file: file.write(b"".join(line + b"\n" for line in encoded)))


def write_list(
    target: Path, paths: list[str], labels: list[str] | None, labels_target: Path | None
) -> None:
    """The list, and beside it the file of labels where it is another one."""
    if target.suffix == ".csv":
        columns = ("path",) if labels is None else ("path", "label")
        write_table(target, columns, zip(*filter(None, (paths, labels)), strict=True))
    else:
        write_lines(target, paths)
        if labels is not None and labels_target is not None:
            write_lines(labels_target, labels)


def read_back(target: Path, labels_target: Path | None, labelled: bool, root: str) -> Source:
    """The data set that the list makes."""
    if target.suffix == ".csv":
        column = "label" if labelled else None
        return Csv(Csv.Config(path=str(target), label_column=column, root=root), split="train")
    labels = None if labels_target is None else str(labels_target)
    config = FileList.Config(train=str(target), train_labels=labels, root=root)
    return FileList(config, split="train")


def check(source: Source, target: Path, paths: list[str], labels: list[str] | None) -> None:
    """DataError unless the list gives back every path and every label."""
    found = [source.name(index) for index in range(len(source))]
    if found != paths:
        pairs = zip(paths, [*found, *[""] * len(paths)], strict=False)
        lost = next((path for path, other in pairs if path != other), paths[-1])
        raise DataError(
            f"{lost!r} cannot be kept in a {target.suffix} list; write a .npy list, or rename it"
        )
    if labels is not None:
        assert source.labels is not None
        names = [source.classes[label] for label in source.labels.tolist()]
        for label, name in zip(labels, names, strict=True):
            if label != name:
                raise DataError(f"the label {label!r} cannot be kept in a file; rename the folder")


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", help="folder of images")
    parser.add_argument("target", type=Path, help="list to write: .txt, .npy or .csv")
    parser.add_argument("--labels", type=Path, help="file of labels to write: .txt or .npy")
    parser.add_argument("--label", action="store_true", help="a column of labels, in a .csv")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser.parse_args()


def checked() -> argparse.Namespace:
    """The command line; ConfigError if its parts do not go together."""
    given = parsed()
    table = given.target.suffix == ".csv"
    if given.target.suffix not in KINDS:
        raise ConfigError(f"{given.target}: a list is one of {', '.join(KINDS)}")
    if given.label and not table:
        raise ConfigError("--label is for .csv lists; give --labels FILE")
    if given.labels is not None and (table or given.labels.suffix not in KINDS[:2]):
        raise ConfigError("--labels FILE (.txt or .npy) is for .txt and .npy lists; see --label")
    for path in (given.target, given.labels):
        if path is not None and path.exists() and not given.overwrite:
            raise ConfigError(f"{path} is there already; give another name or --overwrite")
    if not os.path.isdir(given.root):
        raise DataError(f"{given.root} is no folder of images")
    return given


def main() -> None:
    """List, write, read back, say how to use it."""
    given = checked()
    left_out: Counter[str] = Counter()
    paths = list(image_paths(given.root, left_out))
    if not paths:
        raise DataError(f"no images in {given.root}; read as images are {' '.join(EXTENSIONS)}")
    labels = first_folders(paths) if given.label or given.labels is not None else None
    write_list(given.target, paths, labels, given.labels)
    try:
        source = read_back(given.target, given.labels, labels is not None, given.root)
        check(source, given.target, paths, labels)
    except DataError:
        for path in (given.target, given.labels):
            if path is not None:
                path.unlink(missing_ok=True)
        raise
    print(f"{len(paths)} images{''.join(f', {n} {what} left out' for what, n in left_out.items())}")
    if given.target.suffix == ".csv":
        column = " dataset.label_column=label" if labels else ""
        print(f"dataset=csv dataset.path={given.target} dataset.root={given.root}{column}")
    else:
        more = "" if labels is None else f" dataset.train_labels={given.labels}"
        print(f"dataset=file_list dataset.train={given.target} dataset.root={given.root}{more}")


if __name__ == "__main__":
    run_script(main)
