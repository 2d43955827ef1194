"""A suite beside a run that still trains: every checkpoint is measured as it appears."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

import torch

from unlabeled.config.suites import SuiteConfig
from unlabeled.distributed import comm
from unlabeled.engine import checkpoint
from unlabeled.engine.logs import log_to
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.engine.run_status import read_status
from unlabeled.errors import ConfigError
from unlabeled.evaluation.results import Result
from unlabeled.evaluation.subject import run_of
from unlabeled.evaluation.suite import measure_parts, results_folder, save_table
from unlabeled.evaluation.suite_table import table_by_step

log = logging.getLogger(__name__)


def watch(config: SuiteConfig, device: torch.device) -> None:
    """Measure the checkpoints of a run, oldest first, until it is done and all are measured.

    Results go to results/<step>/, the table of all steps to results/<suite>_by_step.txt. Of
    checkpoints that the run removes before their turn (`checkpoint.keep`) there is no row. A run
    that was killed or stopped counts as one that goes on. Under DDP rank 0 looks and all measure.
    """
    run = run_of(config.weights)
    if run is None:
        raise ConfigError(f"watch: weights={config.weights} is no run; give the run's directory")
    first = comm.rank() == 0
    rows: dict[int, dict[str, Result]] = {}
    seen: set[str] = set()
    folder = results_folder(config)
    with log_to(None, terminal=first):
        log.info("watching %s; it is measured to its end, Ctrl-C stops this alone", run.path)
        while True:
            ended, found = comm.all_gather_objects(_look(run))[0]
            new = [path for path in found if path.name not in seen]
            for path in new:
                seen.add(path.name)
                at_step = replace(config, weights=str(path))
                log.info("checkpoint %s", path.name)
                results, _ = measure_parts(at_step, folder / path.name, device)
                if results:
                    rows[int(path.name)] = results
            if first and new:
                save_table(folder / f"{config.suite.name}_by_step.txt", table_by_step(rows))
            if ended:
                return
            if not new:
                time.sleep(config.watch_seconds)


def _look(run: RunDirectory) -> tuple[bool, list[Path]]:
    """Whether the run is done, and its checkpoints, oldest first.

    The end is asked for first: what is listed afterwards is then all there will be.
    """
    status = read_status(run)
    ended = status is not None and status.state in ("finished", "failed")
    return ended, checkpoint.complete(run.checkpoints)
