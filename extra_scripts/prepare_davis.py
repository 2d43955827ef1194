"""Check, or fetch, DAVIS 2017 (480p) as dataset=davis reads it.

    python extra_scripts/prepare_davis.py /data/DAVIS
    python extra_scripts/prepare_davis.py /data/DAVIS --download

Nothing is fetched without --download, and nothing if all is there: DAVIS-2017-trainval-480p.zip
(0.8 GB) from https://data.vision.ee.ethz.ch/csergi/share/davis, see https://davischallenge.org. An
archive that lies in the folder already is used, and it is not removed. Every video of the lists
must have frames from 00000 on without a gap, and a mask for each. Exit status: 0 complete, 3
something is missing or damaged, 5 a server or the disk refuses.
"""

from __future__ import annotations

from unlabeled.cli.preparing import Part, preparation, prepare
from unlabeled.cli.script import run_script
from unlabeled.data.expected_files import ExpectedFiles
from unlabeled.data.published import PUBLISHED
from unlabeled.data.sources.davis import Davis

LAYOUT = """\
  ImageSets/2017/train.txt  val.txt          60 and 30 videos
  JPEGImages/480p/bear/00000.jpg ...         Annotations/480p/bear/00000.png ..."""
VIDEOS = {"train": 60, "val": 30}


def check(expected: ExpectedFiles) -> None:
    """The videos of both lists."""
    for split, published in VIDEOS.items():
        videos = expected.lines(f"ImageSets/2017/{split}.txt")
        if not videos:
            continue
        expected.count(f"{split}: videos", len(videos), published)
        lengths = {video: length(expected, video) for video in videos}
        empty = [video for video, frames in lengths.items() if not frames]
        if empty:
            expected.fault(
                f"{split}: {len(empty)} of {len(videos)} videos have no frames: {empty[0]}, ..."
            )
        frames = [f"{video}/{n:05}" for video, frames in lengths.items() for n in range(frames)]
        expected.images(f"{split}: frames", (f"JPEGImages/480p/{name}.jpg" for name in frames))
        expected.images(f"{split}: masks", (f"Annotations/480p/{name}.png" for name in frames))


def length(expected: ExpectedFiles, video: str) -> int:
    """One more than the largest number of a frame or a mask."""
    numbers = (
        int(path.stem)
        for kind in ("JPEGImages", "Annotations")
        for path in (expected.root / kind / "480p" / video).glob("[0-9]*.*")
        if path.stem.isdecimal()
    )
    return max(numbers, default=-1) + 1


def main() -> None:
    """Check, fetch if asked, read it as the data set does, say how to use it."""
    parser = preparation(__doc__, "the folder DAVIS", downloads=True)
    given = parser.parse_args()
    prepare(given, LAYOUT, [Part(check, PUBLISHED["davis"])])
    config = Davis.Config(root=str(given.root))
    train, val = Davis(config, split="train"), Davis(config, split="test")
    for name, videos in (("train", train), ("val", val)):
        print(f"complete: {len(videos.videos)} videos of {len(videos):,} frames for {name}")
    print(f"dataset=davis dataset.root={given.root}")


if __name__ == "__main__":
    run_script(main, stopped="stopped; the same command goes on")
