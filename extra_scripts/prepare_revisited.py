"""Check, or fetch, revisited Oxford and Paris (ROxford5k, RParis6k) for dataset=revisited.

    python extra_scripts/prepare_revisited.py /data/landmarks
    python extra_scripts/prepare_revisited.py /data/landmarks --landmarks roxford5k --download

Nothing is fetched without --download, and then only what is missing: the ground truth from
http://cmp.felk.cvut.cz/revisitop, the images of Oxford 5k and Paris 6k (2 GB and 3 GB) from
https://www.robots.ox.ac.uk/~vgg/data. Archives that you put where they would be fetched to
(roxford5k/oxbuild_images-v1.tgz, rparis6k/paris_1-v1.tgz and paris_2-v1.tgz) are used, and none is
removed. Exit status: 0 complete, 3 something is missing or damaged, 5 a server or the disk refuses.
"""

from __future__ import annotations

from functools import partial

from unlabeled.cli.preparing import Part, preparation, prepare
from unlabeled.cli.script import run_script
from unlabeled.data.expected_files import ExpectedFiles
from unlabeled.data.published import PUBLISHED
from unlabeled.data.sources.revisited import Revisited, read_ground_truth
from unlabeled.errors import DataError

LAYOUT = """\
  roxford5k/gnd_roxford5k.pkl  roxford5k/jpg/all_souls_000000.jpg ...    5,063 images
  rparis6k/gnd_rparis6k.pkl    rparis6k/jpg/paris_defense_000000.jpg ... 6,392 images"""
# Radenovic et al., table 2 (the numbers of images) and section 3 (70 queries each).
DATABASE = {"roxford5k": 4993, "rparis6k": 6322}
QUERIES = 70
ENDINGS = (".json", ".pkl")


def check(expected: ExpectedFiles, landmarks: str) -> None:
    """The ground truth, and the images that it names."""
    folder = expected.root / landmarks
    truth = next(
        (p for p in (folder / f"gnd_{landmarks}{e}" for e in ENDINGS) if p.is_file()), None
    )
    if truth is None:
        expected.fault(f"{landmarks}/gnd_{landmarks}.pkl: missing")
        return
    try:
        lists = read_ground_truth(truth)
    except DataError as error:
        expected.fault(f"{error} (--download fetches it if it is not there)")
        return
    expected.count(f"{landmarks}: database", len(lists["imlist"]), DATABASE[landmarks])
    expected.count(f"{landmarks}: queries", len(lists["qimlist"]), QUERIES)
    names = [*lists["imlist"], *lists["qimlist"]]
    expected.images(f"{landmarks}: images", (f"{landmarks}/jpg/{name}.jpg" for name in names))


def main() -> None:
    """Check, fetch if asked, read it as the data set does, say how to use it."""
    parser = preparation(__doc__, "folder of roxford5k/ and rparis6k/", downloads=True)
    parser.add_argument(
        "--landmarks", nargs="+", choices=list(DATABASE), default=list(DATABASE), help="(both)"
    )
    given = parser.parse_args()
    parts = [Part(partial(check, landmarks=name), PUBLISHED[name]) for name in given.landmarks]
    prepare(given, LAYOUT, parts)
    for name in given.landmarks:
        config = Revisited.Config(root=str(given.root), landmarks=name)
        queries, database = (Revisited(config, split=split) for split in ("test", "train"))
        print(f"complete: {len(queries)} queries among {len(database):,} images of {name}")
        print(f"dataset=revisited dataset.root={given.root} dataset.landmarks={name}")


if __name__ == "__main__":
    run_script(main, stopped="stopped; the same command goes on")
