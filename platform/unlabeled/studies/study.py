"""Run every row of a study that has not been run yet, measure it, and tabulate."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unlabeled.config.check import build_config, to_data
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import PretrainConfig
from unlabeled.config.studies import Study
from unlabeled.engine.resume import changed_settings
from unlabeled.engine.run_directory import RunDirectory, write_atomically
from unlabeled.engine.run_status import read_status
from unlabeled.errors import ConfigError, DivergenceError, UserError
from unlabeled.evaluation.results import read_result
from unlabeled.studies.table import DIVERGED, study_table

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What to run: a study at a scale, with seeds, in a folder, with overrides for every run."""

    study: Study
    scale: str
    seeds: Sequence[int]
    out: Path
    overrides: Sequence[str]

    def run(self, label: str, seed: int) -> RunDirectory:
        """Where a row is trained."""
        name = re.sub(r"[^\w.-]+", "-", label).strip("-.")
        return RunDirectory(self.out / f"{name}-seed{seed}")

    def command(self, label: str, seed: int) -> list[str]:
        """What `unlabeled pretrain` is told."""
        chosen = self.study.overrides(label, self.scale)
        return [*chosen, *self.overrides, f"seed={seed}", f"run.dir={self.run(label, seed).path}"]


def run_study(plan: Plan) -> bool:
    """Train and measure what is missing, print the table and write it; whether it is complete.

    Each row is `unlabeled pretrain` in a process of its own: what was interrupted goes on where it
    stopped, what is finished is not run again, and with launch=slurm the rows become jobs, of which
    the same command later makes the table. A run whose loss is no number is a row that says so;
    any other fault of a row ends the study with that row's message.
    """
    check(plan)
    for seed in plan.seeds:
        for label in plan.study.rows:
            _train(plan, label, seed)
    found = {label: _outcome(plan, label) for label in plan.study.rows}
    table = study_table(plan.study, plan.scale, found)
    log.info("\n%s\n", table)
    path = plan.out / f"{plan.study.name}.txt"
    write_atomically(path, table + "\n")
    log.info("written: %s", path)
    return not any(outcome == UNFINISHED for outcome in found.values())


UNFINISHED = "not finished"


def check(plan: Plan) -> None:
    """Compose every row before the first is trained; ConfigError names the rows at fault."""
    folders = [plan.run(label, 0).path.name for label in plan.study.rows]
    if len(set(folders)) < len(folders):
        raise ConfigError(f"rows: their folders would be {', '.join(folders)}; name them apart")
    faults: dict[str, list[str]] = {}
    for label in plan.study.rows:
        try:
            for seed in plan.seeds:
                _check_run(plan, label, seed)
        except ConfigError as error:
            for line in str(error).splitlines():
                faults.setdefault(line, []).append(label)
    if faults:
        every = list(plan.study.rows)
        raise ConfigError(
            [
                line if labels == every else f"row {', '.join(labels)}: {line}"
                for line, labels in faults.items()
            ]
        )


def _check_run(plan: Plan, label: str, seed: int) -> None:
    """The run can be composed, and what is in its folder was trained with the same settings."""
    composed = compose_config("pretrain", plan.command(label, seed))
    config = build_config(PretrainConfig, composed.data, composed.problems)
    run = plan.run(label, seed)
    if run.config_file.is_file():
        changed = list(changed_settings(run.read_config(), to_data(config)))
        if changed:
            raise ConfigError(
                f"out: {run.path} was trained with other settings ({'; '.join(changed[:3])}); "
                "give another out=..."
            )


def _train(plan: Plan, label: str, seed: int) -> None:
    run = plan.run(label, seed)
    status = read_status(run)
    if status is not None and status.state == "failed" and _diverged(run):
        log.info("%s, seed %d: diverged before", label, seed)
        return
    if status is None or status.state != "finished":
        log.info("%s, seed %d: %s", label, seed, run.path)
        _unlabeled("pretrain", plan.command(label, seed), label)
        status = read_status(run)
    if status is not None and status.state == "finished" and not _measured(plan, run):
        _begun(plan, run).touch()
        device = [o for o in plan.overrides if o.startswith(("device=", "launch", "threads="))]
        measured = [f"suite={plan.study.suite}", f"weights={run.path}", *device]
        _unlabeled("suite", measured, label)


def _begun(plan: Plan, run: RunDirectory) -> Path:
    """A file that says that this study's suite, and not the run itself, measures the run."""
    return run.results / f".{plan.study.suite}.begun"


def _measured(plan: Plan, run: RunDirectory) -> bool:
    """Whether there are results, of the whole suite if it was begun: it ends with its table."""
    if _begun(plan, run).exists():
        return (run.results / f"{plan.study.suite}.txt").is_file()
    return any(run.results.glob("*.json"))


def _diverged(run: RunDirectory) -> bool:
    status = read_status(run)
    return status is not None and status.exit_status == DivergenceError.exit_status


def _unlabeled(command: str, arguments: list[str], label: str) -> None:
    """Run a command of this installation; a fault that is not divergence is raised."""
    done = subprocess.run(
        [sys.executable, "-m", "unlabeled", command, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode in (0, DivergenceError.exit_status):
        return
    lines = [line for line in done.stderr.splitlines() if line.startswith("unlabeled: ")]
    said = "; ".join(line.removeprefix("unlabeled: ") for line in lines) or done.stderr[-500:]
    raise _fault(done.returncode)(f"row {label}: {said}")


def _fault(status: int) -> type[UserError]:
    """The kind of error that ends with this status."""
    kinds = {kind.exit_status: kind for kind in UserError.__subclasses__()}
    return kinds.get(status, UserError)


def _outcome(plan: Plan, label: str) -> list[dict[str, float]] | str:
    """The main metric of every result, a dictionary a seed; or why there is none."""
    seeds = []
    for seed in plan.seeds:
        run = plan.run(label, seed)
        if _diverged(run):
            return DIVERGED
        status = read_status(run)
        results = sorted(run.results.glob("*.json"))
        if status is None or status.state != "finished" or not _measured(plan, run):
            return UNFINISHED
        seeds.append(
            {path.stem: next(iter(read_result(path).metrics.values())) for path in results}
        )
    return seeds
