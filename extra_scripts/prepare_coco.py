"""Check, or fetch, COCO 2017: every image that its annotations name.

    python extra_scripts/prepare_coco.py /data/coco
    python extra_scripts/prepare_coco.py /data/coco --splits val2017 --download

Nothing is fetched without --download, and then only a split that is not complete: train2017.zip
(18 GB), val2017.zip (0.8 GB) and annotations_trainval2017.zip, from http://images.cocodataset.org
(see https://cocodataset.org). Archives that lie in the folder already are used, and none is
removed. Exit status: 0 complete, 3 something is missing or damaged, 5 a server or the disk refuses.
"""

from __future__ import annotations

from functools import partial

from unlabeled.cli.preparing import Part, preparation, prepare
from unlabeled.cli.script import run_script
from unlabeled.data.expected_files import ExpectedFiles
from unlabeled.data.published import PUBLISHED

LAYOUT = """\
  annotations/instances_train2017.json  annotations/instances_val2017.json
  train2017/000000000009.jpg ...        val2017/000000000139.jpg ..."""
IMAGES = {"train2017": 118_287, "val2017": 5_000}


def check_split(expected: ExpectedFiles, split: str) -> None:
    """The annotations of a split and the images that they name."""
    name = f"annotations/instances_{split}.json"
    content = expected.json(name, "images", "annotations", "categories")
    if not content:
        return
    images = content["images"]
    expected.count(f"{split}: images", len(images), IMAGES[split])
    expected.count(f"{split}: categories", len(content["categories"]), 80)
    expected.images(f"{split}: images", (f"{split}/{each['file_name']}" for each in images))
    known = {each["id"] for each in images}
    strange = sum(each["image_id"] not in known for each in content["annotations"])
    if strange:
        expected.fault(f"{name}: {strange:,} annotations of images that it does not list")


def main() -> None:
    """Check both splits, fetch if asked."""
    parser = preparation(__doc__, "folder of annotations/, train2017/ and val2017/", downloads=True)
    parser.add_argument(
        "--splits", nargs="+", choices=list(IMAGES), default=list(IMAGES), help="(both)"
    )
    given = parser.parse_args()
    parts = [
        Part(partial(check_split, split=each), PUBLISHED[f"coco/{each}"]) for each in given.splits
    ]
    prepare(given, LAYOUT, parts)
    print(f"complete: {' and '.join(given.splits)} of COCO in {given.root}")


if __name__ == "__main__":
    run_script(main, stopped="stopped; the same command goes on")
