"""Check iNaturalist 2018 and write the table that dataset=csv reads.

    python extra_scripts/prepare_inat18.py /data/inat18

Nothing is downloaded: train_val2018.tar.gz, train2018.json.tar.gz and val2018.json.tar.gz are at
https://github.com/visipedia/inat_comp (2018); unpack them into one folder. All files that the lists
name must be there; the table has columns path, label (category_id) and split, in the lists' order.
Exit status: 0 complete, 3 something is missing or damaged, 5 the table cannot be written.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unlabeled.cli.preparing import expected_files, preparation, write_labels
from unlabeled.cli.script import run_script
from unlabeled.data.expected_files import ExpectedFiles

LAYOUT = """\
  train2018.json  val2018.json
  train_val2018/Plantae/7477/3b60c9486db1d2ee875f11a669fbde4a.jpg ..."""
IMAGES = {"train": 437_513, "val": 24_426}
CLASSES = 8142


def rows(expected: ExpectedFiles, split: str) -> Iterator[tuple[str, int, str]]:
    """(path, label, split) of every image of a list."""
    name = f"{split}2018.json"
    content = expected.json(name, "images", "annotations")
    labels = {each["image_id"]: each["category_id"] for each in content.get("annotations", [])}
    images = content.get("images", [])
    unlabelled = [each["file_name"] for each in images if each["id"] not in labels]
    if unlabelled:
        expected.fault(f"{name}: {len(unlabelled)} images without a category: {unlabelled[0]}, ...")
        return
    if content:
        expected.count(f"{name}: images", len(images), IMAGES[split])
    for each in images:
        yield each["file_name"], labels[each["id"]], split


def main() -> None:
    """Check, write, say how to use it."""
    parser = preparation(__doc__, "folder of the lists and of train_val2018/")
    parser.add_argument("--table", type=Path, help="where to write it (ROOT/inat18.csv)")
    given = parser.parse_args()
    expected = expected_files(given, LAYOUT)
    found = [row for split in IMAGES for row in rows(expected, split)]
    expected.images("images", (path for path, _, _ in found))
    if found:
        expected.count("classes", len({label for _, label, _ in found}), CLASSES)
    expected.require()
    write_labels(given, "inat18.csv", found, given.root)


if __name__ == "__main__":
    run_script(main)
