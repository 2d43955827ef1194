"""Check Pascal VOC 2007 and 2012: the images and boxes of every list that the protocols use.

    python extra_scripts/prepare_voc.py /data/VOCdevkit --years 2007 2012

Nothing is downloaded: VOCtrainval_06-Nov-2007.tar, VOCtest_06-Nov-2007.tar and
VOCtrainval_11-May-2012.tar are at http://host.robots.ox.ac.uk/pascal/VOC/; unpack them where
VOCdevkit/ shall lie.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from unlabeled.data.expected_files import ExpectedFiles
from unlabeled.errors import UserError

LAYOUT = """\
  VOC2007/ImageSets/Main/{trainval,test}.txt  VOC2012/ImageSets/Main/{train,val,trainval}.txt
  VOC2007/JPEGImages/000001.jpg ...           VOC2007/Annotations/000001.xml ..."""
IMAGES = {
    2007: {"trainval": 5011, "test": 4952},
    2012: {"train": 5717, "val": 5823, "trainval": 11540},
}
CLASSES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *(
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ),
]


def check_year(expected: ExpectedFiles, year: int) -> None:
    """The lists, images, boxes and per-class lists of one year."""
    for split, published in IMAGES[year].items():
        lists = f"VOC{year}/ImageSets/Main"
        names = expected.lines(f"{lists}/{split}.txt")
        if not names:
            continue
        expected.count(f"VOC{year} {split}", len(names), published)
        what = f"VOC{year} {split}"
        expected.files(f"{what}: images", (f"VOC{year}/JPEGImages/{n}.jpg" for n in names))
        expected.files(f"{what}: boxes", (f"VOC{year}/Annotations/{n}.xml" for n in names))
        expected.files(f"{what}: class lists", (f"{lists}/{c}_{split}.txt" for c in CLASSES))


def main() -> None:
    """Check every year."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="VOCdevkit, the folder of VOC2007/ and VOC2012/")
    parser.add_argument(
        "--years", type=int, nargs="+", choices=list(IMAGES), default=list(IMAGES), help="(both)"
    )
    parser.add_argument("--part", action="store_true", help="fewer images than published are fine")
    given = parser.parse_args()
    expected = ExpectedFiles(given.root.expanduser(), LAYOUT, counts=not given.part)
    for year in given.years:
        check_year(expected, year)
    expected.require()
    print(f"complete: VOC{' and VOC'.join(map(str, given.years))} in {given.root}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
