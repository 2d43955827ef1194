"""The job of `unlabeled suite`: many benchmarks of the same weights, one table."""

from __future__ import annotations

import logging
import re
from dataclasses import fields
from pathlib import Path

import torch

from unlabeled.config.schema import EvaluateConfig, MeasuringConfig
from unlabeled.config.suites import SuiteConfig, SuitePart
from unlabeled.distributed import comm
from unlabeled.engine.logs import log_to
from unlabeled.engine.run_directory import write_atomically
from unlabeled.errors import ConfigError, EnvironmentProblem, UserError
from unlabeled.evaluation.evaluate import identity, measure, save_result
from unlabeled.evaluation.features import FeatureSet
from unlabeled.evaluation.results import Result, read_result
from unlabeled.evaluation.subject import load_subject, run_of
from unlabeled.evaluation.suite_table import suite_table

log = logging.getLogger(__name__)


def run_suite(config: SuiteConfig, device: torch.device) -> None:
    """Measure every part that is not measured yet, and tabulate all of them.

    A part that fails is named, and the others go on; at the end the first failure decides the
    status. A part counts as measured if its result file was made from the same weights, images,
    view, settings and version (`Result.identity`). Under DDP all ranks measure a part together and
    rank 0 writes.
    """
    run = run_of(config.weights)
    first = comm.rank() == 0
    with log_to(run.log_file if run and first else None, terminal=first):
        folder = results_folder(config)
        results, failures = measure_parts(config, folder, device)
        if first:
            method = run.read_config()["method"]["name"] if run else None
            save_table(
                folder / f"{config.suite.name}.txt", suite_table(config.suite, results, method)
            )
    if failures:
        name, error = next(iter(failures.items()))
        raise type(error)(f"{len(failures)} not measured ({', '.join(failures)}); {name}: {error}")


def results_folder(config: SuiteConfig) -> Path:
    """`out`, the results of the run, or a folder here that is named after the weights."""
    if config.out is not None:
        return Path(config.out).expanduser()
    run = run_of(config.weights)
    if run is not None:
        return run.results
    return Path("results", re.sub(r"[^\w.-]+", "-", config.weights).strip("-."))


def save_table(path: Path, table: str) -> None:
    """Print the table and write it; a full disk or a read-only folder is named."""
    log.info("\n%s\n", table)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, table + "\n")
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {path}: {error.strerror}") from error
    log.info("written: %s", path)


def measure_parts(
    config: SuiteConfig, folder: Path, device: torch.device
) -> tuple[dict[str, Result], dict[str, UserError]]:
    """The results by the name of the part, from files or new, and why others failed."""
    results: dict[str, Result] = {}
    failures: dict[str, UserError] = {}
    cache: dict[str, FeatureSet] = {}
    dataset = None
    for name, part in config.suite.parts.items():
        if part is None:
            continue
        if part.dataset != dataset:
            cache.clear()  # features of one data set at a time stay in memory
            dataset = part.dataset
        try:
            result = _measured(part_config(config, part), folder / f"{name}.json", device, cache)
            if part.metric is not None and part.metric not in result.metrics:
                known = ", ".join(result.metrics)
                raise ConfigError(f"metric: {part.metric!r} is not measured; there is {known}")
            results[name] = result
        except UserError as error:
            log.error("%s: %s", name, error)
            failures[name] = error
    return results, failures


def part_config(config: SuiteConfig, part: SuitePart) -> EvaluateConfig:
    """The part as `unlabeled evaluate` would be told it."""
    shared = {field.name: getattr(config, field.name) for field in fields(MeasuringConfig)}
    shared["dataset"] = part.dataset or config.dataset
    return EvaluateConfig(**shared, benchmark=part.benchmark, out=None)


def _measured(
    config: EvaluateConfig, path: Path, device: torch.device, cache: dict[str, FeatureSet]
) -> Result:
    """The result in `path` if it is of this very measurement, or a new one, written there."""
    subject = load_subject(config, config.benchmark.build().measured)
    # What rank 0 finds on its disk decides for all.
    found, problem = comm.all_gather_objects(_stored(path))[0]
    if problem is not None:
        raise problem
    if found is not None and found.identity == identity(config, subject):
        log.info("%s: measured already, %s", path.stem, path)
        return found
    result = measure(config, subject, device, cache)
    if comm.rank() == 0:
        save_result(path, result)
    return result


def _stored(path: Path) -> tuple[Result | None, UserError | None]:
    """The result in `path`, if there is one, or why it cannot be read."""
    try:
        return (read_result(path) if path.is_file() else None), None
    except UserError as error:
        return None, error
