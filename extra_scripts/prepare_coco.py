"""Check COCO 2017: every image that its annotations name.

    python extra_scripts/prepare_coco.py /data/coco

Nothing is downloaded: train2017.zip, val2017.zip and annotations_trainval2017.zip are at
https://cocodataset.org; unpack them into one folder.
"""

from __future__ import annotations

from unlabeled.cli.preparing import expected_files, preparation
from unlabeled.cli.script import run_script
from unlabeled.data.expected_files import ExpectedFiles

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
    """Check both splits."""
    parser = preparation(__doc__, "folder of annotations/, train2017/ and val2017/")
    given = parser.parse_args()
    expected = expected_files(given, LAYOUT)
    for split in IMAGES:
        check_split(expected, split)
    expected.require()
    print(f"complete: COCO 2017 in {given.root}")


if __name__ == "__main__":
    run_script(main)
