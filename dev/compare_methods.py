"""Pretrain with every method on the embedded photographs, with several seeds, and tabulate.

    python dev/compare_methods.py                     # about 2 minutes a method and seed on 2 cores
    python dev/compare_methods.py --readme            # also puts the table into README.md
    python dev/compare_methods.py --seeds 0 --methods swav simclr

Same data, views, backbone, optimizer, schedule and number of epochs: only `method=` and `seed=`
differ. Every number is what the run itself measured. The seeds take turns, so that a machine which
slows down does so for all methods; of a method's times the shortest is given, as other work on the
machine can only lengthen them. What `--out` holds from an interrupted comparison of the same
commit is not run again. Further arguments (key=value) go to every run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "platform"), str(ROOT / "dev")]

from readme_table import replace_table  # noqa: E402

from unlabeled.registry import names  # noqa: E402

REFERENCE = "supervised"
BASELINES = ("raw pixels", "random initialisation")


@dataclass(frozen=True)
class Outcome:
    """What one run printed at its end: features -> (k-NN, linear) in percent, and its seconds."""

    rows: dict[str, list[float]]
    seconds: float
    machine: str


def outcome(method: str, seed: int, folder: Path, extra: list[str]) -> Outcome:
    """Of one run, which is not repeated if it ended before."""
    place = folder / f"{method}-{seed}"
    kept = folder / f"{place.name}.json"
    if kept.exists():
        return Outcome(**json.loads(kept.read_text()))
    shutil.rmtree(place, ignore_errors=True)  # continued, an interrupted run would seem too fast
    started = time.monotonic()
    command = [sys.executable, "-m", "unlabeled", "pretrain", f"method={method}", f"seed={seed}"]
    done = subprocess.run(
        [*command, f"run.dir={place}", *extra],
        env={**os.environ, "PYTHONPATH": str(ROOT / "platform")},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(
            f"{method} ended with status {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    found = Outcome(closing_table(done.stdout), time.monotonic() - started, machine(place))
    kept.write_text(json.dumps(asdict(found)))
    return found


def machine(run: Path) -> str:
    """What a run was computed on."""
    environment = json.loads((run / "environment.json").read_text())
    torch, python = environment["packages"]["torch"], environment["python"]
    return f"{len(os.sched_getaffinity(0))} CPU cores, torch {torch}, Python {python}"


def closing_table(printed: str) -> dict[str, list[float]]:
    """Features -> [k-NN, linear], in percent."""
    rows = {}
    for name in (*BASELINES, "pretrained"):
        if found := re.search(rf"^{name}\s+([\d.]+)\s+([\d.]+)$", printed, re.MULTILINE):
            rows[name] = [float(number) for number in found.groups()]
    return rows


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation."""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} +- {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def row(title: str, pairs: list[list[float]], seconds: list[float]) -> str:
    """One line of the table."""
    knn, linear = (spread([pair[column] for pair in pairs]) for column in (0, 1))
    time_taken = f"{min(seconds):.0f} s" if seconds else ""
    return f"| {title} | {knn} | {linear} | {time_taken} |"


def table(found: dict[str, list[Outcome]]) -> str:
    """Markdown: baselines first, then a row a method, the best linear top-1 first."""
    lines = [
        "| features | 20-NN top-1 | linear top-1 | whole command, shortest |",
        "|---|---|---|---|",
    ]
    first = next(iter(found.values()))
    lines += [row(name, [one.rows[name] for one in first], []) for name in BASELINES]

    def merit(method: str) -> tuple[bool, float]:
        score = statistics.mean(one.rows["pretrained"][1] for one in found[method])
        return method == REFERENCE, -score

    for method in sorted(found, key=merit):
        pairs = [one.rows["pretrained"] for one in found[method]]
        seconds = [one.seconds for one in found[method]]
        lines.append(row(f"`method={method}`", pairs, seconds))
    return "\n".join(lines)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--methods", nargs="+", default=names("method"), help="all of them")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="0 1 2")
    parser.add_argument("--out", type=Path, help="folder of the runs; runs/compare-<commit>")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    parser.add_argument("overrides", nargs="*", help="key=value for every run")
    arguments = parser.parse_args()
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True)
    folder = (arguments.out or ROOT / "runs" / f"compare-{commit.strip()}").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Outcome]] = {method: [] for method in arguments.methods}
    for seed in arguments.seeds:
        for method in arguments.methods:
            found[method].append(outcome(method, seed, folder, arguments.overrides))
            knn, linear = found[method][-1].rows["pretrained"]
            seconds = found[method][-1].seconds
            print(f"{method} seed {seed}: {knn} {linear} in {seconds:.0f} s", file=sys.stderr)
    seeds = f"{len(arguments.seeds)} seeds: mean and standard deviation"
    if len(arguments.seeds) == 1:
        seeds = "one seed"
    where = found[arguments.methods[0]][0].machine
    text = f"{table(found)}\n\nMeasured by `python dev/compare_methods.py` on {where}, {seeds}."
    print(text)
    if arguments.readme:
        replace_table("compare_methods", text)


if __name__ == "__main__":
    main()
