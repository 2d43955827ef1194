"""The `unlabeled` command: runs a sub-command and turns expected failures into one line each.

Only the module of the chosen sub-command is imported, so that help and listings answer at once.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import unlabeled
from unlabeled import process
from unlabeled.cli.telling import tell
from unlabeled.errors import ConfigError, UserError


@dataclass(frozen=True)
class Command:
    """A sub-command: `main(argv) -> exit status` of a module of this package."""

    module: str
    arguments: str
    summary: str
    needs_torch: bool = False


COMMANDS: dict[str, Command] = {
    "pretrain": Command(
        "unlabeled.cli.pretrain",
        "[experiment=... method=... key=value ...]",
        "train a network on images without labels; alone: a small offline example on the CPU",
        needs_torch=True,
    ),
    "plan": Command(
        "unlabeled.cli.plan",
        "[experiment=... launch.nodes=... key=value ...] | published",
        "memory, computation, traffic, disk and days of a run, without a GPU and before it starts",
        needs_torch=True,
    ),
    "evaluate": Command(
        "unlabeled.cli.evaluate",
        "benchmark=... weights=... [key=value ...]",
        "measure what a network learned",
        needs_torch=True,
    ),
    "suite": Command(
        "unlabeled.cli.suite",
        "suite=... weights=... [key=value ...]",
        "many benchmarks of the same weights, one table; what is measured already is passed over",
        needs_torch=True,
    ),
    "study": Command(
        "unlabeled.cli.study",
        "STUDY [scale=tiny] [seeds=0,1,2] [key=value ...]",
        "a table of a paper again: a run a row, ours beside the published numbers",
        needs_torch=True,
    ),
    "extract": Command(
        "unlabeled.cli.extract",
        "weights=... dataset=... out=... [key=value ...]",
        "write the features of every image of a data set to files",
        needs_torch=True,
    ),
    "index": Command(
        "unlabeled.cli.index",
        "build INPUT ... --out INDEX | check | stats | merge | shuffle",
        "make one index of any number of images, in folders, lists or tar shards",
    ),
    "jobs": Command(
        "unlabeled.cli.jobs",
        "[FOLDER ...] | tail [-f] RUN | cancel RUN | resubmit RUN",
        "runs with their state, step, loss and time left; follow, cancel or continue one",
    ),
    "list": Command(
        "unlabeled.cli.list_components",
        "[kind]",
        "every method, loss, data set ... that a config can name",
    ),
    "show": Command(
        "unlabeled.cli.show_component",
        "KIND NAME",
        "what a component is, its fields and defaults, and how to use it",
    ),
    "doctor": Command(
        "unlabeled.cli.doctor",
        "",
        "check this machine and this installation",
    ),
}


def run() -> int:
    """The command line of this process, after which it ends; the exit status."""
    process.will_end_quickly()
    status = main(sys.argv[1:])
    process.ends_with(status)
    return status


def main(argv: Sequence[str]) -> int:
    """Run one command line and return its exit status."""
    try:
        status = _dispatch(list(argv))
        sys.stdout.flush()
        return status
    except UserError as error:
        tell(error)
        return error.exit_status
    except KeyboardInterrupt:
        print("unlabeled: interrupted", file=sys.stderr)
        return 130  # 128 + SIGINT, as a shell reports it
    except BrokenPipeError:
        # The reader (head, less) left. Python flushes stdout once more at exit: give it a sink.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"unlabeled {unlabeled.__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"unknown command {name!r}.{hint} Known: {', '.join(COMMANDS)}")
    command = COMMANDS[name]
    with process.importing():
        if command.needs_torch:
            from unlabeled.cli.installation import check_torch

            check_torch()
        module = importlib.import_module(command.module)
    status: int = module.main(rest)
    return status


def usage() -> str:
    """The text of `unlabeled --help`."""
    lines = [unlabeled.__doc__ or "", "", "usage:"]
    for name, command in COMMANDS.items():
        lines += [f"  unlabeled {name} {command.arguments}".rstrip(), f"      {command.summary}"]
    lines += ["  unlabeled --version", "", "`unlabeled COMMAND --help` says more."]
    return "\n".join(lines)
