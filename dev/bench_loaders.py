"""End to end: files on disk to batches in training's hands, ours against torch's DataLoader.

    python dev/bench_input.py --loaders             # the table
    python dev/bench_loaders.py --memory 100000     # resident memory over so many images of ours

The reference is the official SwAV pipeline in a default DataLoader: worker processes that send
lists of eight float32 tensors. Both get as many workers as this process has hardware threads.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "platform"), str(ROOT / "dev")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from photographs import jpegs  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from unlabeled.config.schema import LoaderConfig  # noqa: E402
from unlabeled.data.loader import StepBatches, batches  # noqa: E402
from unlabeled.data.sampling.shuffled import Shuffled  # noqa: E402
from unlabeled.data.sources.folder import Folder  # noqa: E402
from unlabeled.data.transforms.multi_crop import MultiCrop  # noqa: E402

BATCH_SIZE = 32
ROUNDS = 5
Make = Callable[[bytes, int], Any]


class _Files(Dataset[Any]):
    """The official pipeline over files, repeated so that an epoch does not end."""

    def __init__(self, paths: list[Path], make: Make, repeats: int) -> None:
        self.paths, self.make, self.repeats = paths, make, repeats

    def __len__(self) -> int:
        return len(self.paths) * self.repeats

    def __getitem__(self, index: int) -> Any:
        return self.make(self.paths[index % len(self.paths)].read_bytes(), index)


def default_loader(folder: Path, make: Make, workers: int) -> Iterator[Any]:
    """torch's DataLoader with its defaults, beside batch size, shuffling and workers."""
    files = _Files(sorted(folder.iterdir()), make, repeats=1000)
    return iter(DataLoader(files, batch_size=BATCH_SIZE, shuffle=True, num_workers=workers))


def our_loader(folder: Path, backend: str, kind: str, workers: int) -> Iterator[Any]:
    """The training stream as the engine asks for it."""
    source = Folder(Folder.Config(root=str(folder)), split="train")
    pipeline = MultiCrop(replace(MultiCrop.Config(), backend=backend))  # type: ignore[arg-type]
    steps_per_epoch = len(source) // BATCH_SIZE
    dataset = StepBatches(
        source,
        pipeline,
        Shuffled(Shuffled.Config(), num_samples=len(source), seed=0),
        seed=0,
        batch_size=BATCH_SIZE,
        micro_steps=1,
        rank=0,
        world_size=1,
        steps_per_epoch=steps_per_epoch,
    )
    settings = LoaderConfig(
        kind=kind,  # type: ignore[arg-type]
        workers=workers,
        prefetch_batches=2,
        max_broken_share=0.0,
        cache_gb=0.0,
        decode_at_least=None,
    )
    return batches(dataset, range(10**9), loader=settings, device=torch.device("cpu"))


def rate(stream: Iterator[Any], count: int) -> float:
    """Images a second of `count` batches, after what was fetched ahead has been used up."""
    for _ in islice(stream, 8):
        pass
    started = time.perf_counter()
    for _ in islice(stream, count):
        pass
    return count * BATCH_SIZE / (time.perf_counter() - started)


def loader_table(files: list[bytes], official: Callable[[], Make]) -> str:
    """Markdown: images a second and ratios; the streams take turns, one alive at a time."""
    workers = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, encoded in enumerate(files):
            (folder / f"{number:04}.jpg").write_bytes(encoded)
        streams: dict[str, tuple[Callable[[], Iterator[Any]], int]] = {
            "official SwAV, default DataLoader": (
                lambda: default_loader(folder, official(), workers),
                16,
            ),
            "ours, threads": (lambda: our_loader(folder, "compiled", "threads", workers), 100),
            "ours, worker processes": (
                lambda: our_loader(folder, "compiled", "processes", workers),
                100,
            ),
            "ours, threads, colour left to the device": (
                lambda: our_loader(folder, "device", "threads", workers),
                100,
            ),
        }
        rates: dict[str, list[float]] = {name: [] for name in streams}
        for _round in range(ROUNDS):
            for name, (start, count) in streams.items():
                stream = start()
                rates[name].append(rate(stream, count))
                del stream  # ends its workers before the next stream starts
    return _markdown({name: np.array(values) for name, values in rates.items()}, workers)


def _markdown(rates: dict[str, np.ndarray], workers: int) -> str:
    reference = next(iter(rates.values()))
    lines = [f"| {workers} workers, batches of {BATCH_SIZE} | images / s | ratio (quartiles) |"]
    lines.append("|---|---|---|")
    for name, values in rates.items():
        low, middle, high = np.percentile(values / reference, [25, 50, 75])
        lines.append(
            f"| {name} | {np.median(values):.0f} | {middle:.1f} ({low:.1f} to {high:.1f}) |"
        )
    return "\n".join(lines)


def resident_mb() -> float:
    """Memory of this process that is in RAM, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def memory(images: int) -> None:
    """Print resident memory ten times along `images` images through our threads."""
    with tempfile.TemporaryDirectory() as name:
        for number, encoded in enumerate(jpegs(200)):
            (Path(name) / f"{number:04}.jpg").write_bytes(encoded)
        stream = our_loader(Path(name), "compiled", "threads", len(os.sched_getaffinity(0)))
        for tenth in range(11):
            print(f"{tenth * images // 10:>8} images: {resident_mb():.0f} MB", flush=True)
            for _ in islice(stream, images // 10 // BATCH_SIZE):
                pass


def main() -> None:
    """Memory alone; the table is part of bench_input.py."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--memory", type=int, default=100_000, metavar="IMAGES")
    torch.set_num_threads(1)
    memory(parser.parse_args().memory)


if __name__ == "__main__":
    main()
