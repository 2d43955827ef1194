"""How long a checkpoint holds training up: written in the background against written at once.

    python dev/bench_checkpoint.py             # the table, printed
    python dev/bench_checkpoint.py --readme    # and put into README.md
    python dev/bench_checkpoint.py --folder /scratch   # onto another disk than the one of /tmp

SwAV with momentum and a queue, as in the paper's recipes but for small crops, which change no
tensor of the state. Every round writes the living state at once (serialise, write, flush to the
disk; no copy), then saves in the background and takes training steps until that is in its place,
then as many steps with nothing beside them; the two ways take turns in going first. Stalled is what
`save` takes when the last checkpoint is out of the way, and what the next update waits for it.
Medians over rounds, quartiles of ratios. Nothing is timed before both ways have written the same
bits while training steps ran on.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "platform"), str(ROOT / "dev")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from readme_table import replace_table  # noqa: E402
from torch import Tensor  # noqa: E402

from unlabeled.config.check import build_config  # noqa: E402
from unlabeled.config.compose import compose_config  # noqa: E402
from unlabeled.config.schema import PretrainConfig  # noqa: E402
from unlabeled.engine import checkpoint  # noqa: E402
from unlabeled.engine.background_writer import BackgroundWriter, write_file  # noqa: E402
from unlabeled.engine.build import build_trainer  # noqa: E402
from unlabeled.engine.interruption import Interruption  # noqa: E402
from unlabeled.engine.run_directory import RunDirectory  # noqa: E402
from unlabeled.engine.trainer import Trainer  # noqa: E402

BACKBONES = {"ResNet-50": "resnet50", "RegNetY-32GF": "regnety_32gf"}
SETTINGS = [
    "dataset=synthetic",
    "dataset.image_size=64",
    "dataset.num_samples=100000",
    "scale=imagenet",
    "method.queue_samples=3840",
    "method.queue_start_epoch=0",
    "method.freeze_prototypes_steps=0",
    "transform.crops=[{count: 2, size: 64, scale: [0.3, 1.0], role: global, operations: null}]",
    "batch_size=4",
    "loader.workers=0",
    "device=cpu",
    "hooks={}",
]


@dataclass
class Times:
    """Seconds, one entry a round."""

    at_once: list[float] = field(default_factory=list)
    stalled: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    """A training step while the thread writes."""
    alone: list[float] = field(default_factory=list)
    """A training step with nothing beside it."""


class Bench:
    """A trainer, its steps, and the two ways of writing."""

    def __init__(self, folder: Path, backbone: str) -> None:
        settings = [*SETTINGS, f"backbone={backbone}", f"run.dir={folder / 'run'}"]
        composed = compose_config("pretrain", settings)
        config = build_config(PretrainConfig, composed.data, composed.problems)
        run = RunDirectory(config.run.dir)
        run.create()
        cpu = torch.device("cpu")
        self.trainer: Trainer = build_trainer(config, run, cpu, Interruption(cpu))
        self.batches: Iterator[Any] = self.trainer.data.training(0, 10**6)
        self.folder = folder
        self.writer = BackgroundWriter(
            run.checkpoints,
            self.trainer.optimizer,
            later=checkpoint.changed_by_step(self.trainer.method),
            keep=1,
        )
        self.waited = 0.0
        self.step()  # makes the momentum

    def step(self) -> float:
        """Seconds of forward, backward and update, and in `waited` what the copy cost of them."""
        trainer = self.trainer
        batch = trainer.fetch(self.batches)
        trainer.set_rates()
        started = time.perf_counter()
        trainer.forward_backward(batch)
        ready = time.perf_counter()
        self.writer.wait_copied()  # the update itself would
        self.waited = time.perf_counter() - ready
        trainer.update()
        trainer.step += 1
        return time.perf_counter() - started

    def contents(self) -> dict[str, dict[str, Any]]:
        """What a checkpoint of this step holds."""
        return checkpoint.contents(
            step=self.trainer.step,
            method=self.trainer.method,
            optimizer=self.trainer.optimizer,
            scaler=self.trainer.precision.scaler,
            data=self.trainer.data.identity,
            present=self.trainer.round,
        )

    def at_once(self) -> float:
        """Seconds to write the living state: no copy, no renamed folder."""
        started = time.perf_counter()
        for name, content in self.contents().items():
            if failure := write_file(self.folder / name, content):
                raise SystemExit(failure)
        return time.perf_counter() - started

    def behind(self) -> tuple[float, list[float]]:
        """Save and train until that is written: seconds stalled, and those of the steps."""
        started = time.perf_counter()
        path = self.writer.save(self.trainer.step, self.contents())
        stalled = time.perf_counter() - started
        steps = [self.step()]
        stalled += self.waited
        while not path.exists():
            steps.append(self.step())
        self.writer.wait()
        return stalled, steps

    def check_equal(self) -> tuple[float, float]:
        """MB of a checkpoint and seconds of the first stall, when both wrote the same bits."""
        self.at_once()
        step = self.trainer.step
        stalled, _ = self.behind()
        path = self.writer.folder / f"{step:08d}"
        for file in path.iterdir():
            one, other = (
                dict(tensors(torch.load(folder / file.name, weights_only=True)))
                for folder in (self.folder, path)
            )
            if one.keys() != other.keys() or not all(torch.equal(one[k], other[k]) for k in one):
                raise SystemExit(f"{file.name}: the two ways do not write the same bits")
        return sum(file.stat().st_size for file in path.iterdir()) / 1e6, stalled


def tensors(value: Any, place: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of nested dicts and lists, with its place."""
    if isinstance(value, Tensor):
        yield place, value
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from tensors(item, f"{place}/{key}")


def measure(bench: Bench, rounds: int) -> Times:
    """Interleaved rounds."""
    times = Times()
    for number in range(rounds):
        if number % 2 == 0:
            times.at_once.append(bench.at_once())
        stalled, steps = bench.behind()
        times.stalled.append(stalled)
        times.beside.append(float(np.mean(steps)))
        times.alone.append(float(np.mean([bench.step() for _ in steps])))
        if number % 2 == 1:
            times.at_once.append(bench.at_once())
    return times


HEADER = """\
| state | MB | at once | stalled (first time) | stalled / at once | a step alone | beside it |
|---|---|---|---|---|---|---|"""


def row(name: str, size: float, first: float, times: Times) -> str:
    """A line of the table."""
    ratios = np.array(times.stalled) / np.array(times.at_once)
    low, middle, high = 100 * np.percentile(ratios, [25, 50, 75])
    at_once, stalled, alone, beside = (
        f"{1000 * np.median(values):.0f} ms"
        for values in (times.at_once, times.stalled, times.alone, times.beside)
    )
    return (
        f"| SwAV, {name} | {size:.0f} | {at_once} | {stalled} ({1000 * first:.0f} ms) "
        f"| {middle:.1f} % ({low:.1f} to {high:.1f}) | {alone} | {beside} |"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--folder", default=None, help="where to write; default: the system's /tmp")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    arguments = parser.parse_args()
    lines = [HEADER]
    for name, backbone in BACKBONES.items():
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            bench = Bench(Path(folder), backbone)
            size, first = bench.check_equal()
            lines.append(row(name, size, first, measure(bench, arguments.rounds)))
            bench.writer.close()
        print(lines[-1], flush=True)
    text = "\n".join(lines)
    text += (
        f"\n\nMeasured by `python dev/bench_checkpoint.py` on {len(os.sched_getaffinity(0))} CPU "
        f"cores, torch {torch.__version__}, Python {platform.python_version()}."
    )
    print(text)
    if arguments.readme:
        replace_table("bench_checkpoint", text)


if __name__ == "__main__":
    main()
