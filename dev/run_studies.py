"""Run every study on the embedded photographs, and tabulate which of the papers' orders they keep.

    python dev/run_studies.py                  # about a hundred minutes on 2 cores
    python dev/run_studies.py --readme         # also puts the table into README.md
    python dev/run_studies.py --studies swav_hard_codes multi_crop --seeds 0 1 2
    python dev/run_studies.py threads=1        # key=value goes to every run

Each is `unlabeled study NAME scale=tiny`, whose own table, ours beside the paper's, lies in
OUT/NAME. What `--out` holds is not run again: two calls with half of the studies each may run side
by side, and a third without `--studies` tabulates both. The minutes of a study that was interrupted
are those of its last part.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "platform"), str(ROOT / "dev")]

from readme_table import replace_table  # noqa: E402

from unlabeled.config.studies import load_study, studies  # noqa: E402

ORDER = re.compile(
    r"^(\w+): (\d+) of (\d+) pairs of rows stand in the paper's order$", re.MULTILINE
)


def run(name: str, seeds: list[int], folder: Path, overrides: list[str]) -> tuple[str, float]:
    """The table that a study printed, and its minutes, which are kept beside it."""
    out = folder / name
    kept = folder / f"{name}.json"
    if kept.exists():
        found = json.loads(kept.read_text())
        return found["table"], found["minutes"]
    started = time.monotonic()
    which = [name, "scale=tiny", f"seeds={','.join(map(str, seeds))}", f"out={out}"]
    done = subprocess.run(
        [sys.executable, "-m", "unlabeled", "study", *which, *overrides],
        env={**os.environ, "PYTHONPATH": str(ROOT / "platform")},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name} ended with status {done.returncode}")
    minutes = (time.monotonic() - started) / 60
    table = (out / f"{name}.txt").read_text()
    kept.write_text(json.dumps({"table": table, "minutes": minutes}))
    return table, minutes


def line(name: str, table: str) -> str:
    """One row of the README's table: the pairs by each of the two measures."""
    pairs = {measure: f"{same} of {total}" for measure, same, total in ORDER.findall(table)}
    study = load_study(name)
    cells = [f"`{name}`", study.title, str(len(study.rows))]
    cells += [pairs.get(measure, "") for measure in ("knn", "linear")]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--studies", nargs="+", default=studies(), help="all of them")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="0")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "studies", help="runs/studies")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    parser.add_argument("overrides", nargs="*", help="key=value for every run")
    arguments = parser.parse_args()
    folder = arguments.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        "| study | table | rows | pairs by 20-NN | pairs by linear |",
        "|---|---|---|---|---|",
    ]
    for name in arguments.studies:
        table, minutes = run(name, arguments.seeds, folder, arguments.overrides)
        print(f"{table}\n{minutes:.0f} minutes\n", file=sys.stderr)
        lines.append(line(name, table))
    seeds = "one seed" if len(arguments.seeds) == 1 else f"{len(arguments.seeds)} seeds"
    text = "\n".join([*lines, "", f"Measured by `python dev/run_studies.py`, {seeds}."])
    print(text)
    if arguments.readme:
        replace_table("run_studies", text)


if __name__ == "__main__":
    main()
