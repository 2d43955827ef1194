"""Re-encode a folder tree of images as JPEGs of one quality: smaller to read, sooner decoded.

    python extra_scripts/reencode_images.py photographs photographs_q85 --quality 85
    python extra_scripts/reencode_images.py photographs photographs_512 --max-side 512

This loses detail; how much, and what it gains, is measured on a sample and printed at the end. The
pixels that are encoded are those that training would see: upright, RGB, without a colour profile.
The tree stays as it is; a.jpg and a.jpeg keep their names, a.png becomes a.png.jpg. A run that was
stopped goes on where it was: what exists is skipped, unless --overwrite. Images that cannot be
decoded are named and counted, and are missing in the result.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image

from unlabeled.cli.script import run_script
from unlabeled.data.decode import BrokenImage, decode_bytes, decode_file
from unlabeled.data.sources.folder import EXTENSIONS
from unlabeled.errors import ConfigError, DataError
from unlabeled.printable import printable

JPEG_EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif")
SETTINGS = ".reencode_images.json"
NAMES_PER_TASK = 64
DECODE_REPEATS = 3


@dataclass(frozen=True)
class Encoding:
    """What makes the files of two runs the same; kept beside them."""

    quality: int
    max_side: int | None

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    def source_pixels(self, path: Path) -> np.ndarray:
        """The pixels that are encoded, [h, w, 3]: the image, shrunk if it is too large."""
        pixels = decode_file(path)
        height, width = pixels.shape[:2]
        if self.max_side is None or max(height, width) <= self.max_side:
            return pixels
        scale = self.max_side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))

    def jpeg(self, path: Path) -> bytes:
        """The image as a JPEG; BrokenImage if it cannot be read, or is longer than a JPEG may be.

        4:2:0, with Huffman tables of its own, which take nothing but time at this end.
        """
        buffer = BytesIO()
        pixels = self.source_pixels(path)
        image = Image.fromarray(pixels)
        if np.array_equal(pixels, np.broadcast_to(pixels[:, :, :1], pixels.shape)):
            image = image.convert("L")  # without loss, and without two channels of nothing
        try:
            image.save(buffer, "JPEG", quality=self.quality, subsampling="4:2:0", optimize=True)
        except OSError as error:
            raise BrokenImage(f"{image.width} x {image.height} pixels: {error}") from error
        return buffer.getvalue()


def image_paths(root: Path, below: str = "", above: tuple[str, ...] = ()) -> Iterator[str]:
    """Images below a folder, relative to it, sorted; links are followed, but never in a circle."""
    folder = root / below
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as listing:
        entries = sorted(e.name for e in listing if not e.name.startswith("."))
    for name in entries:
        path = os.path.join(below, name)
        if (root / path).is_dir():
            yield from image_paths(root, path, (*above, real))
        elif os.path.splitext(name)[1].lower() in EXTENSIONS:
            yield path


def target_name(name: str) -> str:
    """Where an image goes, relative to the target: names that say JPEG stay, others are told."""
    return name if os.path.splitext(name)[1].lower() in JPEG_EXTENSIONS else f"{name}.jpg"


def write(target: Path, name: str, content: bytes) -> None:
    """Put a file below `target`, as a whole or not at all; DataError where a link leads outside."""
    place = target / name
    if not place.parent.resolve().is_relative_to(target.resolve()):
        raise DataError(f"{place.parent} leads out of {target}; remove the link")
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.parent / f".{os.getpid()}.part"
    try:
        part.unlink(missing_ok=True)
        with part.open("xb") as file:
            file.write(content)
        part.replace(place)  # a link of this name is replaced, not followed
    finally:
        part.unlink(missing_ok=True)


def reencode(
    source: Path, target: Path, names: list[str], encoding: Encoding, overwrite: bool
) -> tuple[int, list[tuple[str, str]]]:
    """How many of these were written, and (name, reason) of the broken ones."""
    written, broken = 0, []
    for name in names:
        place = target_name(name)
        if overwrite or not os.path.lexists(target / place):
            try:
                write(target, place, encoding.jpeg(source / name))
                written += 1
            except BrokenImage as error:
                broken.append((name, str(error)))
    return written, broken


def reencode_all(
    source: Path, target: Path, names: list[str], encoding: Encoding, overwrite: bool, workers: int
) -> tuple[int, list[tuple[str, str]]]:
    """`reencode` over processes, with a line on stderr for every broken image."""
    written, broken = 0, []
    pool = ProcessPoolExecutor(workers, get_context("spawn"), ignore_interrupts)
    try:
        starts = range(0, len(names), NAMES_PER_TASK)
        tasks = [
            pool.submit(
                reencode, source, target, names[i : i + NAMES_PER_TASK], encoding, overwrite
            )
            for i in starts
        ]
        for task in tasks:
            count, failed = task.result()
            written += count
            broken += failed
            for name, reason in failed:
                print(printable(f"broken: {name}: {reason}"), file=sys.stderr, flush=True)
    except BrokenProcessPool as error:
        raise DataError(
            "a process died, perhaps for want of memory; start again with fewer --workers: "
            "what is done is kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
    return written, broken


def ignore_interrupts() -> None:
    """The parent is interrupted too, and ends its processes between two tasks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def best_seconds(contents: tuple[bytes, bytes]) -> list[float]:
    """Seconds to decode each content: the best of some turns, taken alternately."""
    best = [float("inf")] * len(contents)
    for _ in range(DECODE_REPEATS):
        for place, content in enumerate(contents):
            start = perf_counter()
            decode_bytes(content)
            best[place] = min(best[place], perf_counter() - start)
    return best


def measured(source: Path, target: Path, names: list[str], encoding: Encoding, size: int) -> str:
    """What a sample lost and gained, spread evenly over the images that there are."""
    there = [name for name in names if os.path.lexists(target / target_name(name))]
    sample = [there[i] for i in sorted({len(there) * k // size for k in range(size)})]
    differences, lengths, seconds = [], [], []
    for name in sample:
        contents = (source / name).read_bytes(), (target / target_name(name)).read_bytes()
        differences.append(difference(source / name, contents[1], encoding))
        lengths.append([len(content) for content in contents])
        seconds.append(best_seconds(contents))
    kilobytes, milliseconds = np.mean(lengths, axis=0) / 1e3, np.mean(seconds, axis=0) * 1e3
    return (
        f"of {len(sample)} images: mean absolute difference {np.mean(differences):.2f} grey levels"
        f"{'' if encoding.max_side is None else ' from the shrunk original'}; "
        f"size {kilobytes[1] / kilobytes[0]:.2f} times ({kilobytes[0]:.1f} -> "
        f"{kilobytes[1]:.1f} KB); decode time {milliseconds[1] / milliseconds[0]:.2f} times "
        f"({milliseconds[0]:.2f} -> {milliseconds[1]:.2f} ms)"
    )


def difference(path: Path, encoded: bytes, encoding: Encoding) -> float:
    """Mean absolute difference in grey levels; DataError if the two are not the same image."""
    try:
        before, after = encoding.source_pixels(path), decode_bytes(encoded)
    except BrokenImage as error:
        raise DataError(f"{path} or its copy is damaged ({error}); try --overwrite") from error
    if before.shape != after.shape:
        raise DataError(f"{path} has changed since it was encoded; make all again by --overwrite")
    return float(np.abs(before.astype(np.int16) - after).mean())


def check_folders(source: Path, target: Path) -> None:
    """DataError unless there are images to read and neither folder lies in the other."""
    if not source.is_dir():
        raise DataError(f"{source} is no folder of images")
    here, there = source.resolve(), target.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise DataError(f"{target} and {source} lie in each other; give a folder beside it")


def check_names(names: list[str], source: Path) -> None:
    """DataError if there are none, or if two would become one."""
    if not names:
        raise DataError(f"no images in {source}; files read as images are {' '.join(EXTENSIONS)}")
    taken: dict[str, str] = {}
    for name in names:
        other = taken.setdefault(target_name(name), name)
        if other != name:
            raise DataError(f"{other} and {name} would both become {target_name(name)}")


def check_settings(target: Path, encoding: Encoding) -> None:
    """ConfigError unless the target is empty, or was made with these settings as far as it goes."""
    settings = target / SETTINGS
    if settings.exists():
        before = settings.read_text()
        if before != encoding.text():
            raise ConfigError(
                f"{target} was made with {before}, not with {encoding.text()}; "
                "take the same settings, another folder or --overwrite"
            )
    elif any(target.iterdir()):
        raise ConfigError(
            f"{target} holds files of unknown settings; take an empty folder or --overwrite"
        )


def in_range(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: a whole number from low to high."""

    def number(text: str) -> int:
        if not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text} is not in {low}..{high}")
        return int(text)

    return number


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    number = in_range(1, 1 << 16)
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument("source", type=Path, help="folder of images")
    parser.add_argument("target", type=Path, help="folder to make or to go on with")
    parser.add_argument("--quality", type=in_range(1, 100), default=85, help="of the JPEGs (85)")
    parser.add_argument("--max-side", type=number, help="shrink larger images to it, in pixels")
    parser.add_argument("--overwrite", action="store_true", help="make existing files again")
    parser.add_argument("--workers", type=number, default=workers, help="processes (all cores)")
    parser.add_argument("--sample", type=number, default=64, help="images measured at the end (64)")
    return parser.parse_args()


def main() -> None:
    """List, re-encode, measure, print."""
    given = parsed()
    encoding = Encoding(given.quality, given.max_side)
    source, target = given.source.expanduser(), given.target.expanduser()
    check_folders(source, target)
    names = list(image_paths(source))
    check_names(names, source)
    target.mkdir(parents=True, exist_ok=True)
    settings = encoding.text().encode()
    if given.overwrite:
        # Until all files are new, they are of two kinds.
        (target / SETTINGS).unlink(missing_ok=True)
    else:
        check_settings(target, encoding)
        write(target, SETTINGS, settings)
    written, broken = reencode_all(source, target, names, encoding, given.overwrite, given.workers)
    write(target, SETTINGS, settings)
    skipped = len(names) - written - len(broken)
    print(f"{written} written, {skipped} already there, {len(broken)} broken")
    if len(broken) == len(names):
        raise DataError(f"none of the {len(names)} images in {source} can be decoded")
    print(measured(source, target, names, encoding, given.sample))


if __name__ == "__main__":
    run_script(main, stopped="stopped; the same command goes on from here")
