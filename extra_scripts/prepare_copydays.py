"""Check, or fetch, INRIA Copydays as dataset=copydays reads it.

    python extra_scripts/prepare_copydays.py /data/copydays
    python extra_scripts/prepare_copydays.py /data/copydays --parts original strong --download

Nothing is fetched without --download, and then only parts that are missing:
copydays_original.tar.gz and copydays_strong.tar.gz, from
https://dl.fbaipublicfiles.com/vissl/datasets. For the archives of crops/ and jpegqual/ no address
is known that still answers. Every copy must have its original. Archives that lie in the folder
already are used, and none is removed. Exit status: 0 complete, 3 something is missing or damaged,
5 a server or the disk refuses.
"""

from __future__ import annotations

from functools import partial

from unlabeled.cli.preparing import Part, preparation, prepare
from unlabeled.cli.script import run_script
from unlabeled.data.expected_files import ExpectedFiles
from unlabeled.data.published import PUBLISHED
from unlabeled.data.sources.copydays import ORIGINALS, PREFIX, Copydays

LAYOUT = """\
  original/200000.jpg ...                  157 pictures
  strong/200001.jpg ...                    229 copies, changed by hand
  crops/{10,15,20,30,...,80}/200000.jpg ...     157 copies each, cut by so many per cent
  jpegqual/{3,5,8,10,...,75}/200000.jpg ...     157 copies each, of so low a JPEG quality"""
FOLDERS = {
    "original": ["original"],
    "strong": ["strong"],
    "crops": [f"crops/{share}" for share in (10, 15, 20, 30, 40, 50, 60, 70, 80)],
    "jpegqual": [f"jpegqual/{quality}" for quality in (3, 5, 8, 10, 15, 20, 30, 50, 75)],
}
STRONG = 229


def check(expected: ExpectedFiles, part: str) -> None:
    """The pictures of every folder of a part, and the originals of copies."""
    for folder in FOLDERS[part]:
        names = expected.listing(folder, ".jpg")
        if not names and (expected.root / folder).is_dir():
            expected.fault(f"{folder}: has no .jpg files")
        expected.count(f"{folder}: pictures", len(names), STRONG if part == "strong" else ORIGINALS)
        expected.images(folder, (f"{folder}/{name}" for name in names))
        original = expected.root / "original"
        if part != "original" and original.is_dir():
            known = {path.name[:PREFIX] for path in original.glob("*.jpg")}
            lost = [name for name in names if name[:PREFIX] not in known]
            if lost:
                expected.fault(f"{folder}: {len(lost)} copies without an original: {lost[0]}, ...")


def main() -> None:
    """Check, fetch if asked, read it as the data set does, say how to use it."""
    parser = preparation(__doc__, "folder of original/ and strong/", downloads=True)
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=list(FOLDERS),
        default=["original", "strong"],
        help="(original strong)",
    )
    given = parser.parse_args()
    prepare(
        given,
        LAYOUT,
        [
            Part(partial(check, part=part), PUBLISHED.get(f"copydays/{part}", ()))
            for part in given.parts
        ],
    )
    print(f"complete: {', '.join(given.parts)} of Copydays in {given.root}")
    for folder in (each for part in given.parts if part != "original" for each in FOLDERS[part]):
        config = Copydays.Config(root=str(given.root), queries=folder)
        copies = Copydays(config, split="test")
        print(
            f"dataset=copydays dataset.root={given.root} dataset.queries={folder}    "
            f"({len(copies)} copies)"
        )


if __name__ == "__main__":
    run_script(main, stopped="stopped; the same command goes on")
