"""`unlabeled jobs`: the runs below a folder, and following, cancelling and submitting one again."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from unlabeled.errors import ConfigError, EnvironmentProblem
from unlabeled.hooks.console import duration
from unlabeled.launch.job_listing import RunReport, list_runs, named_run, report_run
from unlabeled.printable import printable

HEADINGS = ("run", "state", "step", "epoch", "loss", "ETA", "restarts", "log", "why")
WHY_WIDTH = 100


def main(argv: Sequence[str]) -> int:
    """List runs, or do one thing with one of them."""
    if argv and argv[0] in ACTIONS:
        return ACTIONS[argv[0]](argv[1:])
    parser = argparse.ArgumentParser(
        prog="unlabeled jobs",
        description="The runs in or below folders, the one that began last first.",
        epilog="One run: unlabeled jobs tail [-f] RUN | cancel RUN | resubmit RUN. RUN is a run "
        "directory, or its name below runs/.",
    )
    parser.add_argument("folder", nargs="*", type=Path, help="default: runs")
    parser.add_argument("--json", action="store_true", help="for programs: a list of objects")
    arguments = parser.parse_args(argv)
    for folder in arguments.folder:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder; known actions: {', '.join(ACTIONS)}")
    reports = list_runs(arguments.folder or [Path("runs")])
    if arguments.json:
        print(json.dumps([_as_data(report) for report in reports], indent=1))
    elif reports:
        print("\n".join(_table([HEADINGS, *map(_row, reports)])))
    else:
        print(f"no runs below {printable(', '.join(map(str, arguments.folder or ['runs'])))}")
    return 0


def _row(report: RunReport) -> tuple[str, ...]:
    step = "-" if report.step is None else str(report.step)
    why = printable(report.state.reason or "")
    return (
        printable(_near(report.run.path)),
        report.state.word,
        step if report.last_step is None else f"{step}/{report.last_step}",
        "-" if report.epoch is None else f"{report.epoch:.2f}",
        "-" if report.loss is None else f"{report.loss:.4f}",
        "-" if report.eta_seconds is None else duration(report.eta_seconds),
        str(report.restarts),
        "-" if report.log is None else printable(_near(report.log)),
        why if len(why) <= WHY_WIDTH else why[: WHY_WIDTH - 3] + "...",
    )


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()


def _as_data(report: RunReport) -> dict[str, Any]:
    """What the table shows, whole."""
    status, job = report.status, report.job
    return {
        "run": str(report.run.path),
        "state": report.state.word,
        "reason": report.state.reason,
        "step": report.step,
        "last_step": report.last_step,
        "epoch": report.epoch,
        "loss": report.loss,
        "eta_seconds": report.eta_seconds,
        "restarts": report.restarts,
        "log": None if report.log is None else str(report.log),
        "began": report.began.isoformat(),
        "host": status.host if status else None,
        "pid": status.pid if status else None,
        "job": job.id if job else status.job if status else None,
        "exit_status": status.exit_status if status else None,
    }


def _tail(argv: Sequence[str]) -> int:
    parser = _parser("tail", "The end of a run's log; of its job's output while it has none.")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    parser.add_argument("-n", "--lines", type=int, default=20, help="default: 20")
    arguments = parser.parse_args(argv)
    if arguments.lines < 0:
        raise ConfigError(f"--lines: must be 0 or more, got {arguments.lines}")
    from unlabeled.launch.log_tail import followed_lines, last_lines

    run = named_run(arguments.run)
    lines = followed_lines if arguments.follow else last_lines
    for line in lines(run, arguments.lines):
        print(printable(line), flush=arguments.follow)
    if arguments.follow:
        print(f"{printable(str(run))}: {report_run(run).state.word}", file=sys.stderr)
    return 0


def _cancel(argv: Sequence[str]) -> int:
    parser = _parser("cancel", "Stop a run for good; a scheduler does not start it again.")
    run = named_run(parser.parse_args(argv).run)
    from unlabeled.launch.run_control import cancel

    print(printable(cancel(report_run(run))))
    return 0


def _resubmit(argv: Sequence[str]) -> int:
    parser = _parser("resubmit", "Continue a run that has ended, in its directory, as it began.")
    report = report_run(named_run(parser.parse_args(argv).run))
    from unlabeled.cli.installation import check_torch

    check_torch()
    from unlabeled.engine.pretrain import pretrain
    from unlabeled.launch.run_control import resubmitted_config

    config = resubmitted_config(report)
    if report.job is not None:
        _go_to(report.job.folder)
    config.launch.build().run(pretrain, config)
    return 0


ACTIONS: dict[str, Callable[[Sequence[str]], int]] = {
    "tail": _tail,
    "cancel": _cancel,
    "resubmit": _resubmit,
}


def _parser(action: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"unlabeled jobs {action}", description=description)
    parser.add_argument("run", metavar="RUN", help="a run directory, or its name below runs/")
    return parser


def _go_to(folder: Path) -> None:
    """Relative paths of the config start where the run was first submitted."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise EnvironmentProblem(
            f"{folder}: the run was submitted from there, and {error.strerror}"
        ) from error


def _near(path: Path) -> str:
    """Relative to the working directory if it is below it."""
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else path)
