"""Pretrain with every method on the embedded photographs, one after the other, and tabulate.

    python dev/compare_methods.py            # prints the table; about 3 minutes a method on 2 cores
    python dev/compare_methods.py --readme   # also puts it into README.md

Same data, views, backbone, optimizer, schedule and number of epochs: only `method=` differs.
Every number is what the run itself measured. Further arguments (key=value) go to every run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("swav", "deepcluster_v2", "sela_v2", "simclr", "supervised")
BASELINES = ("raw pixels", "random initialisation")


def run(method: str, folder: Path, extra: list[str]) -> tuple[dict[str, list[str]], float]:
    """One run: the rows of its closing table (features -> k-NN, linear) and its seconds."""
    started = time.monotonic()
    command = [sys.executable, "-m", "unlabeled", "pretrain", f"method={method}"]
    done = subprocess.run(
        [*command, f"run.dir={folder / method}", *extra],
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
    rows = {}
    for line in done.stdout.splitlines():
        for name in (*BASELINES, "pretrained"):
            if found := re.fullmatch(rf"{name}\s+([\d.]+)\s+([\d.]+)", line):
                rows[name] = list(found.groups())
    return rows, time.monotonic() - started


def table(folder: Path, extra: list[str]) -> str:
    """Markdown: baselines first, then a row a method."""
    lines = ["| features | 20-NN top-1 | linear top-1 | whole command |", "|---|---|---|---|"]
    for number, method in enumerate(METHODS):
        rows, seconds = run(method, folder, extra)
        if number == 0:
            lines += [f"| {name} | {rows[name][0]} | {rows[name][1]} | |" for name in BASELINES]
        knn, linear = rows["pretrained"]
        lines.append(f"| `method={method}` | {knn} | {linear} | {seconds:.0f} s |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    parser.add_argument("overrides", nargs="*", help="key=value for every run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = table(Path(folder), arguments.overrides)
        machine = json.loads((Path(folder) / METHODS[0] / "environment.json").read_text())
    packages = machine["packages"]
    text += (
        f"\n\nMeasured by `python dev/compare_methods.py` on {len(os.sched_getaffinity(0))} CPU "
        f"cores, torch {packages['torch']}, Python {machine['python']}, one seed."
    )
    print(text)
    if arguments.readme:
        readme = ROOT / "README.md"
        marked = re.compile(r"(<!-- table:methods -->\n).*?(<!-- /table -->)", re.DOTALL)
        readme.write_text(marked.sub(lambda m: m[1] + text + "\n" + m[2], readme.read_text()))


if __name__ == "__main__":
    main()
