"""Check a folder of images of your own as dataset=folder reads it.

    python extra_scripts/prepare_folder.py photographs
    python extra_scripts/prepare_folder.py birds --classes 200 --decode

Images may lie as deep as they like. Where there are folders train/ and val/ (or test/), these are
the splits; where every image lies in a folder of a class, these are the labels. Looked at are empty
files, files that were cut short (all images are decoded with --decode, which takes longer and finds
every damage), classes of one split alone, and files that are not read as images. Nothing is written
or fetched. Exit status: 0 fine, 3 something is missing or damaged.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np

from unlabeled.cli.preparing import expected_files, preparation
from unlabeled.cli.script import run_script
from unlabeled.data.expected_files import ExpectedFiles
from unlabeled.data.sources.folder import EXTENSIONS, Folder

LAYOUT = """\
  <anything>/<name>.jpg ...                           no labels needed
  <class>/<name>.jpg ...                              labels are the names of the first folders
  train/<class>/<name>.jpg ...  val/<class>/...       the same, with a test split"""


def others(root: Path) -> Counter[str]:
    """Visible files that are not read as images, by ending."""
    found: Counter[str] = Counter()
    for _, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name[0] != "."]
        endings = (os.path.splitext(name)[1].lower() for name in files if name[0] != ".")
        found.update(ending or "no ending" for ending in endings if ending not in EXTENSIONS)
    return found


def check_split(expected: ExpectedFiles, source: Folder, split: str, *, decode: bool) -> None:
    """The images of one split."""
    names = (os.path.join(source.root, source.name(index)) for index in range(len(source)))
    expected.images(f"{split}: images", names, decode=decode)
    if source.labels is not None:
        counts = np.bincount(source.labels, minlength=source.num_classes)
        empty = [name for name, count in zip(source.classes, counts, strict=True) if not count]
        if empty:
            expected.fault(f"{split}: no image of {len(empty)} classes: {', '.join(empty[:5])}")


def main() -> None:
    """Check, say what it is and how to use it."""
    parser = preparation(__doc__, "folder of images", counted=False)
    parser.add_argument("--classes", type=int, help="how many there should be")
    parser.add_argument("--decode", action="store_true", help="decode every image")
    given = parser.parse_args()
    config = Folder.Config(root=str(given.root))
    expected = expected_files(given, LAYOUT)
    train = Folder(config, split="train")
    splits = {"all": train}
    if Path(train.root) != given.root:
        test = Folder(config, split="test")
        splits = {Path(source.root).name: source for source in (train, test)}
    for split, source in splits.items():
        check_split(expected, source, split, decode=given.decode)
    if given.classes is not None and given.classes != train.num_classes:
        expected.fault(f"classes: {train.num_classes}, expected are {given.classes}")
    expected.require()
    for split, source in splits.items():
        labels = f" of {source.num_classes:,} classes" if source.labels is not None else ""
        print(f"complete: {split}: {len(source):,} images{labels}")
    left_out = ", ".join(
        f"{count:,} {ending}" for ending, count in others(given.root).most_common(5)
    )
    if left_out:
        print(f"left out, as not read as images: {left_out}")
    print(f"dataset=folder dataset.root={given.root}")


if __name__ == "__main__":
    run_script(main)
