"""Steps a second in 1 and 2 processes, what the processes say to each other, and links' times.

    python dev/bench_scaling.py             # measures every method, then prints all tables
    python dev/bench_scaling.py --links     # the computed tables alone, at once
    python dev/bench_scaling.py --readme    # all of it, into README.md
    python dev/bench_scaling.py backbone=resnet50 batch_size=64     # runs with other settings

The runs are those of `unlabeled pretrain method=...` on photo_patches, the global batch being the
same in 1 and 2 processes; methods and numbers of processes take turns. A process computes with one
thread, so twice as fast would be perfect; but processes on one machine share its memory and, where
it is busy, its cores. The formulas of link_times.py must give the bytes counted in these runs, or
the script stops.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "platform"), str(ROOT / "dev")]

import link_times  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from readme_table import replace_table  # noqa: E402

from unlabeled.config.check import build_config  # noqa: E402
from unlabeled.config.compose import compose_config  # noqa: E402
from unlabeled.config.schema import PretrainConfig  # noqa: E402
from unlabeled.distributed import comm  # noqa: E402
from unlabeled.distributed.traffic import Collective, counted  # noqa: E402
from unlabeled.engine.build import build_trainer  # noqa: E402
from unlabeled.engine.interruption import Interruption  # noqa: E402
from unlabeled.engine.run_directory import RunDirectory  # noqa: E402
from unlabeled.engine.trainer import Trainer  # noqa: E402
from unlabeled.hooks.base import Hook  # noqa: E402
from unlabeled.registry import names  # noqa: E402

WARM_UP, TIMED = 4, 12
COUNTED = 2
"""The step whose bytes are shown: DDP arranges its buckets in step 1, meters end the last one."""
PER_GPU = 64
"""Images: 4096 on 64 GPUs, as in the paper."""
KINDS = ("gradients", "batch norm", "engine", "method")


class Stopwatch(Hook):
    """Seconds between the ends of steps."""

    def before_fit(self, trainer: Trainer) -> None:
        self.ends: list[float] = []

    def step_done(self, trainer: Trainer) -> None:
        self.ends.append(time.perf_counter())


class Pieces(Hook):
    """What was sent in every step, and at the start of the epoch."""

    def __init__(self, found: list[Collective]) -> None:
        self.found = found
        self.steps: list[list[Collective]] = []
        self.epoch: list[Collective] = []

    def before_fit(self, trainer: Trainer) -> None:
        self.found.clear()

    def epoch_started(self, trainer: Trainer, record: dict[str, Any]) -> None:
        self.epoch = self.found.copy()
        self.found.clear()

    def step_done(self, trainer: Trainer) -> None:
        self.steps.append(self.found.copy())
        self.found.clear()


def kind(call: Collective) -> str:
    """What a collective is for, by the modules that were at work."""
    inner, *outer = (name.removeprefix("unlabeled.") for name in call.callers)
    if inner == "distributed.batch_norm":
        return "batch norm"
    if inner != "distributed.comm":
        return "gradients"  # DDP calls torch itself
    # A backward pass through comm is started by the engine on the method's behalf.
    of_engine = outer[0].startswith("engine.") and outer[0] != "engine.precision"
    return "engine" if of_engine else "method"


def time_steps(config: PretrainConfig, device: torch.device) -> None:
    """A rank's job: leave the median seconds of a step in the run directory."""
    trainer = _trainer(config, device)
    trainer.hooks = [watch := Stopwatch(None)]
    trainer.fit()
    _leave(config, float(np.median(np.diff(watch.ends)[WARM_UP - 1 :])))


def count_bytes(config: PretrainConfig, device: torch.device) -> None:
    """A rank's job: leave what it sent in a step, and to start an epoch, by kind."""
    with counted() as found:
        trainer = _trainer(config, device)
        trainer.hooks = [pieces := Pieces(found)]
        trainer.fit()
    step = pieces.steps[COUNTED]
    _leave(
        config,
        {
            "step": {k: sum(c.bytes for c in step if kind(c) == k) for k in KINDS},
            "epoch": sum(c.bytes for c in pieces.epoch if kind(c) == "method"),
            "own": [(c.operation, c.elements, c.bytes) for c in step if kind(c) == "method"],
        },
    )


def _trainer(config: PretrainConfig, device: torch.device) -> Trainer:
    return build_trainer(config, RunDirectory(config.run.dir), device, Interruption(device))


def _leave(config: PretrainConfig, value: object) -> None:
    if comm.rank() == 0:
        Path(config.run.dir, "result.json").write_text(json.dumps(value))


def launched(
    job: Any, method: str, processes: int, steps: int, settings: list[str]
) -> tuple[Any, PretrainConfig]:
    """What rank 0 left, and the config that it ran."""
    choices = [*settings, f"method={method}", f"launch.processes={processes}"]
    choices += [f"max_steps={steps}"]
    choices += ["device=cpu", "threads=1", "loader.workers=1"]
    choices += ["hooks.comparison_table=null", "hooks.knn_probe=null"]
    with tempfile.TemporaryDirectory() as folder:
        composed = compose_config("pretrain", [*choices, f"run.dir={folder}"])
        config = build_config(PretrainConfig, composed.data, composed.problems)
        config.launch.build().run(job, config)
        return json.loads(Path(folder, "result.json").read_text()), config


def check_formula(method: str, config: PretrainConfig, own: list[list[Any]]) -> None:
    """Stop the script where a formula of link_times.py does not give what was counted."""
    head, views = config.head.fields, sum(c.count for c in config.transform.fields.crops)
    expected: list[Collective] = []
    if method == "swav":
        assert config.assigner is not None
        crops = len(config.method.fields.crops_for_assign)
        iterations = config.assigner.fields.iterations
        expected = link_times.swav(head.num_prototypes, iterations, crops).calls
    elif method == "simclr":
        expected = link_times.simclr(config.batch_size, views, head.output_dim, 2).calls
    elif method == "moco_v2":
        expected = link_times.moco_keys(config.batch_size, head.output_dim, 2).calls
    if sorted(map(tuple, own)) != sorted((c.operation, c.elements, c.bytes) for c in expected):
        raise SystemExit(f"{method} sends {own}, the formula says {expected}")


def speeds(methods: list[str], rounds: int, settings: list[str]) -> str:
    """Markdown: steps a second, a row a method."""
    seconds: dict[tuple[str, int], list[float]] = {(m, p): [] for m in methods for p in (1, 2)}
    order = np.random.default_rng(0)
    for number in range(rounds):
        for method in order.permutation(methods).tolist():
            for processes in order.permutation([1, 2]).tolist():
                taken, _ = launched(time_steps, method, processes, WARM_UP + TIMED, settings)
                seconds[method, processes].append(taken)
                print(f"round {number}: {method} in {processes}: {taken:.3f} s", file=sys.stderr)
    lines = ["| steps / s | 1 process | 2 processes | ratio (quartiles) |", "|---|---|---|---|"]
    for method in methods:
        one, two = (np.array(seconds[method, processes]) for processes in (1, 2))
        low, middle, high = np.percentile(one / two, [25, 50, 75])
        lines.append(
            f"| `{method}` | {1 / np.median(one):.2f} | {1 / np.median(two):.2f} "
            f"| {middle:.2f} ({low:.2f} to {high:.2f}) |"
        )
    return "\n".join(lines)


def exchanged(methods: list[str], settings: list[str]) -> str:
    """Markdown: the counted bytes, a row a method."""
    columns = ["bytes a rank puts in", *KINDS, "method, at the start of an epoch"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for method in methods:
        sent, config = launched(count_bytes, method, 2, COUNTED + 2, settings)
        check_formula(method, config, sent["own"])
        numbers = [*(sent["step"][k] for k in KINDS), sent["epoch"]]
        lines.append(f"| `{method}` | {' | '.join(f'{n:,}' for n in numbers)} |")
    return "\n".join(lines)


def described(config: PretrainConfig) -> str:
    """What stands below the measured tables."""
    return (
        "Collectives of a step, of each of two ranks: the gradients, synchronised batch "
        "normalisation, the engine's loss and scalars, and the method's own; in the last column "
        f"its own before the first step of an epoch. Global batch {config.batch_size}, one thread "
        f"a process; by `python dev/bench_scaling.py` on {len(os.sched_getaffinity(0))} hardware "
        f"threads, torch {torch.__version__}, Python {platform.python_version()}."
    )


def main() -> None:
    """Measure, compute and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5, help="0: count bytes, time nothing")
    parser.add_argument("--methods", nargs="+", default=sorted(names("method")))
    parser.add_argument("--links", action="store_true", help="only compute, measure nothing")
    parser.add_argument("--readme", action="store_true", help="into README.md as well")
    parser.add_argument("settings", nargs="*", help="key=value, of every run")
    arguments = parser.parse_args()
    if arguments.readme and arguments.settings:
        parser.error("README.md shows the runs with no other settings")
    recipe = link_times.recipe()
    texts = []
    if not arguments.links:
        composed = compose_config("pretrain", arguments.settings)
        small = build_config(PretrainConfig, composed.data, composed.problems)
        if arguments.rounds:
            texts.append(speeds(arguments.methods, arguments.rounds, arguments.settings))
        texts += [exchanged(arguments.methods, arguments.settings), described(small)]
    conclusion = link_times.conclusion(recipe)
    wide = [link_times.table(recipe, per_gpu=images) for images in (None, PER_GPU)]
    print("\n\n".join([*texts, *wide, conclusion]))
    if arguments.readme:
        short = link_times.table(recipe, per_gpu=PER_GPU, columns=(8, 64, 512))
        replace_table("bench_scaling", "\n\n".join([*texts, short, conclusion]))


if __name__ == "__main__":
    main()
