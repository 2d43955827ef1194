"""Check Places205 and write the table that dataset=csv reads.

    python extra_scripts/prepare_places205.py /data/places205

Nothing is downloaded: the images (imagesPlaces205_resize.tar.gz) and the lists
(trainvalsplit_places205.zip) are at http://places.csail.mit.edu/downloadData.html. The lists have a
path and a class number a line; give the folder that the paths start at as --images. All files that
the lists name must be there; the table has columns path, label and split, in the lists' order.
Exit status: 0 complete, 3 something is missing or damaged, 5 the table cannot be written.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unlabeled.cli.preparing import expected_files, preparation, write_labels
from unlabeled.cli.script import run_script
from unlabeled.data.expected_files import ExpectedFiles

LAYOUT = """\
  train_places205.csv  val_places205.csv     (lines such as: a/abbey/gsun_0003.jpg 0)
  a/abbey/gsun_0003.jpg ...                  (below --images, if that is another folder)"""
IMAGES = {"train": 2_448_873, "val": 20_500}
CLASSES = 205


def rows(expected: ExpectedFiles, split: str) -> Iterator[tuple[str, int, str]]:
    """(path, label, split) of every line of a list."""
    name = f"{split}_places205.csv"
    lines = expected.lines(name)
    if lines:
        expected.count(f"{name}: images", len(lines), IMAGES[split])
    for number, line in enumerate(lines, start=1):
        path, _, label = line.rpartition(" ")
        if not path or not label.isdecimal():
            expected.fault(f"{name}, line {number}: expected a path and a number, got {line!r}")
            return
        yield path, int(label), split


def main() -> None:
    """Check, write, say how to use it."""
    parser = preparation(__doc__, "folder of the lists")
    parser.add_argument("--images", type=Path, help="folder that the paths start at (ROOT)")
    parser.add_argument("--table", type=Path, help="where to write it (ROOT/places205.csv)")
    given = parser.parse_args()
    expected = expected_files(given, LAYOUT)
    found = [row for split in IMAGES for row in rows(expected, split)]
    images = given.images or given.root
    expected.images("images", (str(images.expanduser().absolute() / path) for path, _, _ in found))
    if found:
        expected.count("classes", len({label for _, label, _ in found}), CLASSES)
    expected.require()
    write_labels(given, "places205.csv", found, images)


if __name__ == "__main__":
    run_script(main)
