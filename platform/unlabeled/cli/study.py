"""`unlabeled study`: a table of a paper again, at any scale."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from unlabeled.config.studies import load_study, studies
from unlabeled.engine.logs import log_to
from unlabeled.errors import ConfigError
from unlabeled.studies.study import Plan, run_study

log = logging.getLogger(__name__)
DESCRIPTION = (
    "Train and measure every row of a table, each as a run of its own, and print it beside the "
    "paper's. What is finished is not run again."
)
EPILOG = (
    "scale=NAME: paper, or a smaller one; default: tiny. seeds=0,1,2: default 0. out=FOLDER: "
    "default runs/<study>-<scale>. Every other key=value goes to `unlabeled pretrain` of every row."
)


def main(argv: Sequence[str]) -> int:
    """Run the command; faults are raised as UserError."""
    parser = argparse.ArgumentParser(prog="unlabeled study", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("study", help=f"a YAML file, or one of: {', '.join(studies())}")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    arguments = parser.parse_args(argv)
    study = load_study(arguments.study)
    own, overrides = _split(arguments.settings)
    scale = own.get("scale", "tiny")
    out = Path(own.get("out", f"runs/{study.name}-{scale}")).expanduser()
    plan = Plan(study, scale, _seeds(own.get("seeds", "0")), out, overrides)
    with log_to(None, terminal=True):
        if not run_study(plan):
            print("unlabeled: rows are not finished; the same command goes on", file=sys.stderr)
    return 0


def _split(settings: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """What is for the study, and what is for its runs."""
    own, overrides = {}, []
    for text in settings:
        key, separator, value = text.partition("=")
        if separator and key in ("scale", "seeds", "out"):
            own[key] = value
        elif key in ("seed", "run.dir"):
            raise ConfigError(f"{text}: the study decides it; use seeds= or out=")
        else:
            overrides.append(text)
    return own, overrides


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.strip("[]").split(",")]
    except ValueError:
        seeds = []
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"seeds: expected different whole numbers such as 0,1,2, got {text!r}")
    return seeds
