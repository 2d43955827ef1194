"""The job of `unlabeled evaluate`: one benchmark on one set of weights."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from pathlib import Path

import torch

import unlabeled
from unlabeled.config.check import to_data
from unlabeled.config.schema import EvaluateConfig
from unlabeled.data.normalize import Normalize
from unlabeled.data.sources.base import Source
from unlabeled.distributed import comm
from unlabeled.engine.logs import log_to
from unlabeled.errors import DataError, EnvironmentProblem
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.features import FeatureSet
from unlabeled.evaluation.results import Result, format_table, result_rows, write_result
from unlabeled.evaluation.subject import Subject, frozen, hash_weights, load_subject

log = logging.getLogger(__name__)


def evaluate(config: EvaluateConfig, device: torch.device) -> None:
    """Measure, print, and write the result file."""
    subject = load_subject(config, config.benchmark.build().measured)
    file = None if subject.run is None else subject.run.log_file
    with log_to(file if comm.rank() == 0 else None, terminal=comm.rank() == 0):
        result = measure(config, subject, device)
        if comm.rank() == 0:
            log.info("%s", result.protocol)
            log.info("%s", format_table(result_rows([result])))
            for path in result_paths(config, subject):
                save_result(path, result)


def measure(
    config: EvaluateConfig,
    subject: Subject,
    device: torch.device,
    cache: dict[str, FeatureSet] | None = None,
) -> Result:
    """Run the benchmark; `cache` shares features between benchmarks of the same subject."""
    started = time.monotonic()
    backbone = frozen(subject.backbone, device)
    probe = Probe(
        encode=backbone,
        backbone=backbone,
        feature_dim=subject.feature_dim,
        train=subject.train,
        test=subject.test,
        pipeline=subject.transform.build(),
        normalize=Normalize(subject.normalization, device),
        device=device,
        batch_size=config.batch_size,
        loader=config.loader,
        seed=config.seed,
        cache={} if cache is None else cache,
    )
    benchmark = config.benchmark.build()
    metrics = benchmark.run(probe)
    return Result(
        benchmark=config.benchmark.name,
        protocol=benchmark.protocol,
        metrics=metrics,
        dataset=subject.dataset,
        fingerprint=_measured(config, subject).fingerprint(),
        weights=config.weights,
        seed=config.seed,
        seconds=time.monotonic() - started,
        identity=identity(config, subject),
        config=to_data(config),
    )


def identity(config: EvaluateConfig, subject: Subject) -> str:
    """A fingerprint of all that decides the numbers of a measurement, as hexadecimal digits.

    Weights, images of both splits, evaluation view, normalisation, benchmark and the files that it
    reads, seed and version; not the batch size, the device or the number of processes.
    """
    digest = hash_weights(subject.backbone)
    settings = {
        "images": [subject.train.fingerprint(), _measured(config, subject).fingerprint()],
        "view": to_data(subject.transform),
        "normalization": to_data(subject.normalization),
        "benchmark": to_data(config.benchmark),
        "files": [_contents(path) for path in config.benchmark.build().files],
        "seed": config.seed,
        "version": unlabeled.__version__,
    }
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()


def _measured(config: EvaluateConfig, subject: Subject) -> Source:
    """The images that the numbers are of."""
    return subject.train if config.benchmark.build().measured == "train" else subject.test


def result_paths(config: EvaluateConfig, subject: Subject) -> list[Path]:
    """`out`, or the run's own results folder; nothing for weights that belong to no run."""
    if config.out is not None:
        return [Path(config.out).expanduser()]
    if subject.run is not None:
        return [subject.run.results / f"{config.benchmark.name}.json"]
    return []


def save_result(path: Path, result: Result) -> None:
    """Write one result file; a full disk or a read-only folder is named."""
    try:
        write_result(path, result)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {path}: {error.strerror}") from error
    log.info("written: %s", path)


def _contents(path: Path) -> str:
    try:
        return hashlib.sha256(path.expanduser().read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
