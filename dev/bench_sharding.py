"""Memory of each of two processes when they divide the model among them, and when each holds it.

    python dev/bench_sharding.py             # the table, printed
    python dev/bench_sharding.py --steps 5 backbone=resnet50 batch_size=16

The runs are those of `unlabeled pretrain` on photo_patches with LARC, with the same seed, in two
processes on the CPU. Memory is what the process occupies above what it did with everything
imported and nothing built: its peak while the model is built, and its peak in training. The table
also says by how much the losses of a run differ from those of the first one, of a loss. Other
settings of the run are given as to `unlabeled pretrain`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "platform"), str(ROOT / "dev")]
# Or the allocator keeps what was freed, and a peak is that of all the past.
os.environ |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}

import torch  # noqa: E402
import torch.distributed.checkpoint  # noqa: E402
import torch.distributed.fsdp  # noqa: E402

from unlabeled.config.check import build_config  # noqa: E402
from unlabeled.config.compose import compose_config  # noqa: E402
from unlabeled.config.schema import PretrainConfig  # noqa: E402
from unlabeled.distributed import comm  # noqa: E402
from unlabeled.engine.build import build_trainer  # noqa: E402
from unlabeled.engine.interruption import Interruption  # noqa: E402
from unlabeled.engine.run_directory import RunDirectory  # noqa: E402
from unlabeled.engine.trainer import Trainer  # noqa: E402
from unlabeled.hooks.base import Hook, Record  # noqa: E402

WAYS: dict[str, tuple[str, ...]] = {
    "whole on each (DDP)": (),
    "sharded (FSDP)": ("sharding=fsdp",),
    "DDP, activations of a stage again": ("activation_checkpointing=stage",),
    "FSDP, activations of a stage again": ("sharding=fsdp", "activation_checkpointing=stage"),
}
DEFAULTS = ["backbone=resnet18", "batch_size=16"]
SETTINGS = [
    *("launch.processes=2", "device=cpu", "threads=1", "loader.workers=0", "epochs=100"),
    *("optimizer=larc", "scheduler.lr=0.1", "hooks.knn_probe=null", "hooks.comparison_table=null"),
    *DEFAULTS,
]
HEADER = """\
| parameters | building, MB | training, MB | largest difference of a loss |
|---|---|---|---|"""


class Losses(Hook):
    """The loss of every step."""

    def before_fit(self, trainer: Trainer) -> None:
        self.found: list[float] = []

    def after_step(self, trainer: Trainer, record: Record) -> None:
        self.found.append(float(record["loss"]))


def occupied(field: str) -> float:
    """MB of this process: VmRSS now, VmHWM at most since `forget_peak`."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def forget_peak() -> None:
    """Let VmHWM begin at what is occupied now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def measure(config: PretrainConfig, device: torch.device) -> None:
    """A rank's job: leave its peaks and losses in the run directory."""
    started = occupied("VmRSS")
    forget_peak()
    trainer = build_trainer(config, RunDirectory(config.run.dir), device, Interruption(device))
    building = occupied("VmHWM") - started
    trainer.hooks = [watch := Losses(None)]
    forget_peak()
    trainer.fit()
    peaks = comm.all_gather_objects((building, occupied("VmHWM") - started))
    if comm.rank() == 0:
        result = [max(values) for values in zip(*peaks, strict=True)]
        Path(config.run.dir, "result.json").write_text(json.dumps([result, watch.found]))


def launched(steps: int, settings: Sequence[str]) -> Any:
    """The larger peaks of the two ranks, and the losses."""
    with tempfile.TemporaryDirectory() as folder:
        choices = [*SETTINGS, *settings, f"max_steps={steps}", f"run.dir={folder}"]
        composed = compose_config("pretrain", choices)
        config = build_config(PretrainConfig, composed.data, composed.problems)
        config.launch.build().run(measure, config)
        return json.loads(Path(folder, "result.json").read_text())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("settings", nargs="*", help="key=value, as to `unlabeled pretrain`")
    arguments = parser.parse_args()
    print(HEADER)
    first: list[float] = []
    for name, way in WAYS.items():
        (building, training), losses = launched(arguments.steps, [*arguments.settings, *way])
        first = first or losses
        apart = max(abs(a - b) / abs(a) for a, b in zip(first, losses, strict=True))
        print(f"| {name} | {building:.0f} | {training:.0f} | {apart:.1e} |", flush=True)
    print(
        f"\nSwAV with LARC on photo_patches ({' '.join([*DEFAULTS, *arguments.settings])}), "
        f"{arguments.steps} steps in 2 processes, torch {torch.__version__}."
    )


if __name__ == "__main__":
    main()
