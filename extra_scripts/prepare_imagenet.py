"""Check ImageNet (ILSVRC2012) as dataset=folder reads it: train/ and val/, a folder a class.

    python extra_scripts/prepare_imagenet.py /data/imagenet

Nothing is downloaded, moved or unpacked: ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar are
at https://image-net.org (after registration). Classes, numbers of images, and files that are empty
or cut short are looked at. Exit status: 0 complete, 3 something is missing or damaged.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from unlabeled.cli.preparing import expected_files, preparation
from unlabeled.cli.script import run_script
from unlabeled.data.expected_files import ExpectedFiles

LAYOUT = """\
  train/n01440764/n01440764_18.JPEG ...             1,281,167 images in 1,000 folders
  val/n01440764/ILSVRC2012_val_00000293.JPEG ...    50,000 images in the same folders"""
IMAGES = {"train": 1_281_167, "val": 50_000}
CLASSES = 1000
PER_CLASS = {"train": range(732, 1301), "val": range(50, 51)}
"""Images of a class: training sets have 732 to 1,300, validation sets 50."""


def listing(folder: Path) -> list[str]:
    """Visible entries of a folder, sorted; none if it is no folder."""
    return sorted(e for e in os.listdir(folder) if e[0] != ".") if folder.is_dir() else []


def check_split(expected: ExpectedFiles, split: str, *, whole: bool) -> list[str]:
    """Look at one split; its classes."""
    entries = listing(expected.root / split)
    classes = [name for name in entries if re.fullmatch(r"n\d{8}", name)]
    archives = [name for name in entries if name.endswith(".tar")]
    flat = [name for name in entries if name.startswith("ILSVRC2012_val_")]
    if archives:
        expected.fault(f"{split}: {len(archives):,} archives to unpack, each into its own folder")
    if flat:
        expected.fault(f"{split}: {len(flat):,} images lie beside the folders of their classes")
    if not classes:
        expected.fault(f"{split}: no folder of a class, such as n01440764")
        return []
    expected.count(f"{split}: classes", len(classes), CLASSES)
    names = [
        f"{split}/{name}/{file}"
        for name in classes
        for file in listing(expected.root / split / name)
    ]
    expected.count(f"{split}: images", len(names), IMAGES[split])
    expected.images(f"{split}: images", names)
    if whole:
        for name in classes:
            count = len(listing(expected.root / split / name))
            if count not in PER_CLASS[split]:
                expected.fault(
                    f"{split}/{name}: {count} images, expected {PER_CLASS[split][0]}"
                    f" to {PER_CLASS[split][-1]}"
                )
    return classes


def main() -> None:
    """Check, say how to use it."""
    parser = preparation(__doc__, "folder of train/ and val/")
    given = parser.parse_args()
    expected = expected_files(given, LAYOUT)
    train, val = (check_split(expected, split, whole=not given.part) for split in IMAGES)
    only = sorted(set(train) ^ set(val))
    if only and train and val:
        expected.fault(f"classes of one split alone: {', '.join(only[:5])}")
    expected.require()
    print(f"complete: {len(train):,} classes")
    print(f"dataset=folder dataset.root={given.root}")


if __name__ == "__main__":
    run_script(main)
