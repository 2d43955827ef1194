"""Check iNaturalist 2018 and write the table that dataset=csv reads.

    python extra_scripts/prepare_inat18.py /data/inat18

Nothing is downloaded: train_val2018.tar.gz, train2018.json.tar.gz and val2018.json.tar.gz are at
https://github.com/visipedia/inat_comp (2018); unpack them into one folder. All files that the lists
name must be there; the table has columns path, label (category_id) and split, in the lists' order.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from unlabeled.data.expected_files import ExpectedFiles
from unlabeled.data.whole_files import write_table
from unlabeled.errors import UserError

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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="folder of the lists and of train_val2018/")
    parser.add_argument("--table", type=Path, help="where to write it (ROOT/inat18.csv)")
    parser.add_argument("--part", action="store_true", help="fewer images than published are fine")
    given = parser.parse_args()
    expected = ExpectedFiles(given.root.expanduser(), LAYOUT, counts=not given.part)
    found = [row for split in IMAGES for row in rows(expected, split)]
    expected.files("images", (path for path, _, _ in found))
    if found:
        expected.count("classes", len({label for _, label, _ in found}), CLASSES)
    expected.require()
    table = given.table or given.root / "inat18.csv"
    write_table(table.expanduser(), ("path", "label", "split"), found)
    print(f"complete: {len(found):,} images; {table}")
    print(
        f"dataset=csv dataset.path={table} dataset.root={given.root} dataset.label_column=label "
        "dataset.split_column=split"
    )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
