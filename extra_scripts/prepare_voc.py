"""Check, or fetch, Pascal VOC 2007 and 2012: images and boxes of every list the protocols use.

    python extra_scripts/prepare_voc.py /data/VOCdevkit --years 2007 2012
    python extra_scripts/prepare_voc.py /data/VOCdevkit --years 2007 --download

Nothing is fetched without --download, and then only a year that is not complete:
VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar (0.9 GB), VOCtrainval_11-May-2012.tar
(2 GB), from http://host.robots.ox.ac.uk/pascal/VOC. Archives that lie in the folder already are
used, and none is removed. Exit status: 0 complete, 3 something is missing or damaged, 5 a server or
the disk refuses.
"""

from __future__ import annotations

from functools import partial

from unlabeled.cli.preparing import Part, preparation, prepare
from unlabeled.cli.script import run_script
from unlabeled.data.expected_files import ExpectedFiles
from unlabeled.data.published import PUBLISHED
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
    """Check every year, fetch if asked."""
    parser = preparation(__doc__, "VOCdevkit, the folder of VOC2007/ and VOC2012/", downloads=True)
    parser.add_argument(
        "--years", type=int, nargs="+", choices=list(IMAGES), default=list(IMAGES), help="(both)"
    )
    given = parser.parse_args()
    parts = [Part(partial(check_year, year=year), PUBLISHED[f"voc{year}"]) for year in given.years]
    prepare(given, LAYOUT, parts)
    print(f"complete: VOC{' and VOC'.join(map(str, given.years))} in {given.root}")


if __name__ == "__main__":
    run_script(main, stopped="stopped; the same command goes on")
