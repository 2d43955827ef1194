"""Check Pascal VOC 2007 and 2012: the images and boxes of every list that the protocols use.

    python extra_scripts/prepare_voc.py /data/VOCdevkit --years 2007 2012

Nothing is downloaded: VOCtrainval_06-Nov-2007.tar, VOCtest_06-Nov-2007.tar and
VOCtrainval_11-May-2012.tar are at http://host.robots.ox.ac.uk/pascal/VOC/; unpack them where
VOCdevkit/ shall lie.
"""

from __future__ import annotations

from unlabeled.cli.preparing import expected_files, preparation
from unlabeled.cli.script import run_script
from unlabeled.data.expected_files import ExpectedFiles
from unlabeled.data.sources.voc07 import CLASSES

LAYOUT = """\
  VOC2007/ImageSets/Main/{trainval,test}.txt  VOC2012/ImageSets/Main/{train,val,trainval}.txt
  VOC2007/JPEGImages/000001.jpg ...           VOC2007/Annotations/000001.xml ..."""
IMAGES = {
    2007: {"trainval": 5011, "test": 4952},
    2012: {"train": 5717, "val": 5823, "trainval": 11540},
}


def check_year(expected: ExpectedFiles, year: int) -> None:
    """The lists, images, boxes and per-class lists of one year."""
    for split, published in IMAGES[year].items():
        lists = f"VOC{year}/ImageSets/Main"
        names = expected.lines(f"{lists}/{split}.txt")
        if not names:
            continue
        expected.count(f"VOC{year} {split}", len(names), published)
        what = f"VOC{year} {split}"
        expected.images(f"{what}: images", (f"VOC{year}/JPEGImages/{n}.jpg" for n in names))
        expected.files(f"{what}: boxes", (f"VOC{year}/Annotations/{n}.xml" for n in names))
        expected.files(f"{what}: class lists", (f"{lists}/{c}_{split}.txt" for c in CLASSES))


def main() -> None:
    """Check every year."""
    parser = preparation(__doc__, "VOCdevkit, the folder of VOC2007/ and VOC2012/")
    parser.add_argument(
        "--years", type=int, nargs="+", choices=list(IMAGES), default=list(IMAGES), help="(both)"
    )
    given = parser.parse_args()
    expected = expected_files(given, LAYOUT)
    for year in given.years:
        check_year(expected, year)
    expected.require()
    print(f"complete: VOC{' and VOC'.join(map(str, given.years))} in {given.root}")


if __name__ == "__main__":
    run_script(main)
