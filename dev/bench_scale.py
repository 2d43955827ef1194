"""Nothing in the input grows with the size of the data set: an index of 10^4 and of 10^9 entries.

    python dev/bench_scale.py                          # all tables, printed
    python dev/bench_scale.py --readme                 # and put into README.md
    python dev/bench_scale.py --entries 10000 10000000 --folder /scratch

The large index is a sparse file: it has its full length, and real records wherever the measured
order looks, a page of the disk each. Every size is measured in a process of its own. An id is one
sample of a batch of 256 in the shuffled order; an entry is its name, shard number and bytes; a
shard is its path by that number, of which a reader holds the last 4096. The first look-ups may wait
for the disk; the others find the kernel's page cache filled, and are the least of several rounds of
the processor's time, which other work on the machine changes least. They are measured in two ways:
32 places again and again, which the processor's own caches hold, so that our work and the kernel's
is what counts; and all places in turn, which lie in 140 pages of 10^4 entries but in 20,000 of
10^9, so that each read also waits for memory. Faults of the process are counted. Memory is what it
gained since it had imported everything: its own, and with the pages of files that it maps.

The second table is about the order: every element of range(N) once, and the inverse undoes it, for
all N to 300, powers of two and one beside them, primes and 10^6; sampled at 10^9. Chi-square of
where samples land, and correlations, are given as standard deviations from chance.

The third table reads JPEGs as files and as members of shards, with 2 processes, in turns: what is
read is in the page cache, so that nothing but our own work can differ. Medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "platform"), str(ROOT / "dev")]

import numpy as np  # noqa: E402
from photographs import jpegs  # noqa: E402
from readme_table import replace_table  # noqa: E402

from unlabeled.data.index.building import build  # noqa: E402
from unlabeled.data.index.inputs import plan  # noqa: E402
from unlabeled.data.index.layout import (  # noqa: E402
    CONTAINER,
    CONTAINERS,
    ENTRIES,
    ENTRY,
    NAMES,
    FileMark,
    Header,
    Kind,
)
from unlabeled.data.index.reader import Index  # noqa: E402
from unlabeled.data.sampling.permutation import Permutation  # noqa: E402
from unlabeled.data.sampling.shuffled import Shuffled  # noqa: E402
from unlabeled.data.sources.index import IndexedImages  # noqa: E402

PROCESSES, ROUNDS = 2, 7
LOOK_UPS, BATCH = 9984, 256  # 39 whole batches, fewer than the smaller index has
FEW = 32  # entries whose pages and the kernel's records of them stay in the processor's caches
NAME_BYTES, ENTRIES_PER_SHARD = 24, 10_000


def order(entries: int) -> Shuffled:
    """The order that is measured."""
    return Shuffled(Shuffled.Config(), num_samples=entries, seed=0)


def write_sparse(folder: Path, entries: int) -> None:
    """An index of shards that is real wherever the first LOOK_UPS of the order look."""
    folder.mkdir(parents=True)
    shards = -(-entries // ENTRIES_PER_SHARD)
    with (folder / NAMES).open("wb") as names, (folder / ENTRIES).open("wb") as records:
        for place in np.sort(order(entries).indices(0, 0, LOOK_UPS)).tolist():
            start, shard = place * NAME_BYTES, place // ENTRIES_PER_SHARD
            names.seek(start)
            names.write(name_of(place))
            records.seek(place * ENTRY.size)
            records.write(ENTRY.pack(start, 512, 100_000, shard, NAME_BYTES, place & 0xFFFF))
        records.truncate(entries * ENTRY.size)
        first = entries * NAME_BYTES
        names.seek(first)
        names.write(b"".join(shard_of(number) for number in range(shards)))
    with (folder / CONTAINERS).open("wb") as containers:
        for number in range(shards):
            containers.write(
                CONTAINER.pack(first + number * NAME_BYTES, NAME_BYTES, Kind.SHARD, 10**9, 0)
            )
    files = {name: FileMark((folder / name).stat().st_size, "not computed") for name in FILES}
    Header(entries, shards, 0, files).write(folder)


FILES = (ENTRIES, NAMES, CONTAINERS)


def name_of(place: int) -> bytes:
    """The name of an entry, NAME_BYTES long."""
    return b"%020d.jpg" % place


def shard_of(number: int) -> bytes:
    """The path of a shard, NAME_BYTES long."""
    return b"/data/shard-%08d.tar" % number


def memory() -> tuple[float, float]:
    """MB of this process: of its own, and with the pages of files that it maps."""
    status = Path("/proc/self/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    own, mapped = (float(lines[key].split()[0]) * 1024 / 1e6 for key in ("RssAnon", "RssFile"))
    return own, own + mapped


def timed(
    count: int, work: Callable[[], object], clock: Callable[[], float] = time.process_time
) -> float:
    """Microseconds each."""
    start = clock()
    work()
    return (clock() - start) / count * 1e6


def measure_index(folder: Path) -> dict[str, float]:
    """One row of the table; for a process of its own."""
    before = memory()
    opening = [timed(1, lambda: Index(folder), time.perf_counter) / 1e3 for _ in range(ROUNDS)]
    index = Index(folder)
    opened = memory()
    sampler = order(len(index))
    starts = range(0, LOOK_UPS, BATCH)
    places = [p for s in starts for p in sampler.indices(0, s, s + BATCH).tolist()]

    def ids() -> None:
        for start in starts:
            sampler.indices(0, start, start + BATCH)

    def entries() -> None:
        for place in places:
            index.entry(place)

    def few() -> None:
        for _ in range(LOOK_UPS // FEW):
            for place in places[:FEW]:
                index.container(index.entry(place).container)

    def shards() -> None:
        for place in places:
            index.container(place // ENTRIES_PER_SHARD)

    id_us = min(timed(LOOK_UPS, ids) for _ in range(ROUNDS))
    faults = resource.getrusage(resource.RUSAGE_SELF)
    first_us = timed(LOOK_UPS, entries, time.perf_counter)
    after = resource.getrusage(resource.RUSAGE_SELF)
    entry_us = min(timed(LOOK_UPS, entries) for _ in range(ROUNDS))
    few_us = min(timed(LOOK_UPS, few) for _ in range(ROUNDS))
    shard_us = min(timed(LOOK_UPS, shards) for _ in range(ROUNDS))
    done = memory()
    for place in places:
        entry = index.entry(place)
        assert entry.name == name_of(place) and entry.container == place // ENTRIES_PER_SHARD
        assert index.container(entry.container).path == shard_of(entry.container)
    return {
        "first open, ms": opening[0],
        "open again, ms": statistics.median(opening),
        "memory after opening, MB": opened[1] - before[1],
        "us per id": id_us,
        "us per entry with shard, the same few": few_us,
        "us per entry, all places": entry_us,
        "us per shard, all places": shard_us,
        "us per entry, first": first_us,
        "minor faults per entry, first": (after.ru_minflt - faults.ru_minflt) / LOOK_UPS,
        "major faults per entry, first": (after.ru_majflt - faults.ru_majflt) / LOOK_UPS,
        "own memory after look-ups, MB": done[0] - before[0],
        "with mapped pages, MB": done[1] - before[1],
    }


def index_table(work: Path, sizes: list[int]) -> list[str]:
    """Make, measure and remove an index of each size."""
    rows = {}
    for size in sizes:
        folder = work / f"index-{size}"
        write_sparse(folder, size)
        on_disk = sum((folder / name).stat().st_blocks * 512 for name in FILES) / 1e6
        apparent = sum((folder / name).stat().st_size for name in FILES) / 1e9
        command = [sys.executable, __file__, "--measure", str(folder)]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows[size] = {"GB long": apparent, "MB on disk": on_disk} | json.loads(found)
        shutil.rmtree(folder)
    lines = ["| | " + " | ".join(f"{size:.0e} entries" for size in sizes) + " |"]
    lines.append("| --- |" + " ---: |" * len(sizes))
    for key in rows[sizes[0]]:
        lines.append(f"| {key} | " + " | ".join(f"{rows[size][key]:.3g}" for size in sizes) + " |")
    return lines


def deviations_of_chance(size: int, count: int) -> dict[str, float]:
    """How far `count` samples of several epochs are from random ones, in standard deviations."""
    draws = [Permutation(size, 0, epoch)(np.arange(count)) for epoch in range(3)]
    bins = 1000
    counts = np.bincount(draws[0] * bins // size, minlength=bins)
    chi_square = float(((counts - count / bins) ** 2 / (count / bins)).sum())
    found = {"chi-square of 1000 bins": (chi_square - (bins - 1)) / math.sqrt(2 * (bins - 1))}
    pairs = {
        "an epoch and the next": (draws[0], draws[1]),
        "an epoch and the one after next": (draws[0], draws[2]),
        "neighbours of an epoch": (draws[0][:-1], draws[0][1:]),
        "distances to the next epoch": (np.diff(draws[0]), np.diff(draws[1])),
    }
    for name, (one, other) in pairs.items():
        # Distances of neighbours share an element: -1/2 to the next one, so 1 + 2 (1/2)^2.
        variance = (1.5 if "distances" in name else 1.0) / count
        found[name] = float(np.corrcoef(one, other)[0, 1]) / math.sqrt(variance)
    return found


def permutation_table() -> list[str]:
    """Whether the order is a permutation, and how random it looks."""
    powers = [(1 << power) + more for power in range(9, 20) for more in (-1, 0, 1)]
    sizes = [*range(1, 301), *powers, 1009, 99_991, 524_287, 999_983, 10**6]
    for size in sizes:
        order = Permutation(size, 0, size)
        elements = order(np.arange(size))
        assert np.array_equal(np.sort(elements), np.arange(size)), size
        assert np.array_equal(order.inverse(elements), np.arange(size)), size
    places = np.random.default_rng(0).integers(0, 10**9, 10**6)
    order = Permutation(10**9, 0)
    assert np.array_equal(order.inverse(order(places)), places)
    lines = [
        f"{len(sizes)} sizes to 10^6 are permutations; 10^6 places of 10^9 are found again.",
        "",
        "| standard deviations from chance | N = 10^6, all | N = 10^9, 10^6 of them |",
        "| --- | ---: | ---: |",
    ]
    whole, part = deviations_of_chance(10**6, 10**6), deviations_of_chance(10**9, 10**6)
    for name in whole:
        # All of a permutation fills every bin equally, by its nature.
        first = "-" if name.startswith("chi") else f"{whole[name]:+.2f}"
        lines.append(f"| {name} | {first} | {part[name]:+.2f} |")
    return lines


def make_images(work: Path, count: int) -> dict[str, Path]:
    """Indexes of the same JPEGs as files and in shards."""
    (work / "files").mkdir()
    for number, data in enumerate(jpegs(count)):
        (work / "files" / f"{number:06d}.jpg").write_bytes(data)
    units = plan([str(work / "files")], root=None, folder_labels=False, sizes=False)
    build(units, work / "index", workers=1)
    script = str(ROOT / "extra_scripts" / "make_shards.py")
    command = [sys.executable, script, str(work / "files"), str(work / "shards")]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "platform")}
    options = ["--samples", str(-(-count // 4)), "--workers", "1"]
    subprocess.run([*command, *options], check=True, env=environment, stdout=subprocess.DEVNULL)
    return {"files": work / "index", "shards": work / "shards" / "index"}


class Reader:
    """One of the processes that share a pass."""

    def __init__(self, roots: dict[str, Path], share: int) -> None:
        self.sources = {
            kind: IndexedImages(IndexedImages.Config(root=str(root)), split="train")
            for kind, root in roots.items()
        }
        self.share = share

    def seconds(self, kind: str, decode: bool) -> float:
        """Read this process's share of the images, in random order."""
        source = self.sources[kind]
        places = order(len(source)).indices(0, 0, len(source))[self.share :: PROCESSES].tolist()

        def content(place: int) -> bytes:
            entry = source.index.entry(place)
            return source.opener.content(source.index.container(entry.container), entry)

        read = source.image if decode else content
        start = time.perf_counter()
        for place in places:
            read(place)
        return time.perf_counter() - start


def serve(roots: dict[str, Path], share: int, pipe: Connection) -> None:
    """Read whatever is asked for until the pipe ends."""
    reader = Reader(roots, share)
    while (asked := pipe.recv()) is not None:
        pipe.send(reader.seconds(*asked))


def reading_table(work: Path, count: int) -> list[str]:
    """Images a second, as files and as members of shards."""
    roots = make_images(work, count)
    context = get_context("spawn")
    pipes, processes = [], []
    for share in range(PROCESSES):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(roots, share, theirs)))
        processes[-1].start()
        pipes.append(ours)
    rates: dict[tuple[str, bool], list[float]] = {}
    for turn in range(ROUNDS + 1):
        for decode in (False, True):
            for kind in list(roots)[:: 1 if turn % 2 else -1]:
                for pipe in pipes:
                    pipe.send((kind, decode))
                rate = count / max(pipe.recv() for pipe in pipes)
                if turn:  # the first one fills the page cache
                    rates.setdefault((kind, decode), []).append(rate)
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(None)
        process.join()
    lines = [
        f"| images a second, {PROCESSES} processes | files | shards | shards / files |",
        "| --- | ---: | ---: | ---: |",
    ]
    for decode, what in ((False, "read"), (True, "read and decoded")):
        files, shards = rates["files", decode], rates["shards", decode]
        ratio = statistics.median(s / f for s, f in zip(shards, files, strict=True))
        medians = f"{statistics.median(files):,.0f} | {statistics.median(shards):,.0f}"
        lines.append(f"| {what} | {medians} | {ratio:.2f} |")
    return lines


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, nargs="+", default=[10**4, 10**9])
    parser.add_argument("--images", type=int, default=1000, help="of 100 KB, to read (1000)")
    parser.add_argument("--folder", type=Path, help="where to write; default: the temporary one")
    parser.add_argument("--readme", action="store_true", help="put the tables into README.md")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if min(given.entries) < LOOK_UPS:
        parser.error(f"--entries: at least {LOOK_UPS}, which is how many are looked up")
    return given


def main() -> None:
    """Make, measure, print, remove."""
    given = parsed()
    if given.measure is not None:
        print(json.dumps(measure_index(given.measure)))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        tables = [
            index_table(Path(folder), given.entries),
            permutation_table(),
            reading_table(Path(folder), given.images),
        ]
    cores, version = len(os.sched_getaffinity(0)), platform.python_version()
    where = f"Measured by `python dev/bench_scale.py` on {cores} CPU cores, Python {version}."
    text = "\n\n".join("\n".join(lines) for lines in [*tables, [where]])
    print(text)
    if given.readme:
        replace_table("bench_scale", text)


if __name__ == "__main__":
    main()
