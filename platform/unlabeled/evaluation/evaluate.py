"""The job of `unlabeled evaluate`: one benchmark on one set of weights."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
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
from unlabeled.evaluation.results import (
    Result,
    format_table,
    keep_other,
    result_rows,
    write_result,
)
from unlabeled.evaluation.subject import Subject, frozen, hash_weights, load_subject
from unlabeled.registry import Component

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
                save_result(path, result, keep_others=config.out is None)


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

    Weights, images of both splits and those that the benchmark's fields name, evaluation view,
    normalisation, benchmark and the files that it reads, seed and version; not the batch size, the
    device or the number of processes.
    """
    digest = hash_weights(subject.backbone)
    images = [subject.train, _measured(config, subject), *_named_images(config.benchmark.fields)]
    settings: dict[str, object] = {
        "images": [source.fingerprint() for source in images],
        "view": to_data(subject.transform),
        "normalization": to_data(subject.normalization),
        "benchmark": to_data(config.benchmark),
        "files": [_contents(path) for path in config.benchmark.build().files],
        "seed": config.seed,
        "version": unlabeled.__version__,
    }
    if config.loader.decode_at_least is not None:  # benchmarks that train read such images
        settings["decode_at_least"] = config.loader.decode_at_least
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()


def _measured(config: EvaluateConfig, subject: Subject) -> Source:
    """The images that the numbers are of."""
    return subject.train if config.benchmark.build().measured == "train" else subject.test


def _named_images(value: object) -> Iterator[Source]:
    """The train splits of the data sets in a benchmark's fields, also of one inside another."""
    if isinstance(value, Component):
        if value.kind == "dataset":
            yield value.build(split="train")
        else:
            yield from _named_images(value.fields)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _named_images(getattr(value, field.name))
    elif isinstance(value, Mapping):
        yield from _named_images(list(value.values()))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for each in value:
            yield from _named_images(each)


def result_paths(config: EvaluateConfig, subject: Subject) -> list[Path]:
    """`out`, or the run's own results folder; nothing for weights that belong to no run."""
    if config.out is not None:
        return [Path(config.out).expanduser()]
    if subject.run is not None:
        name = (config.result or config.benchmark.name).replace("/", "-")
        return [subject.run.results / f"{name}.json"]
    return []


def save_result(path: Path, result: Result, *, keep_others: bool = True) -> None:
    """Write one result file; a full disk or a read-only folder is named.

    With `keep_others` the result of another measurement is not replaced but renamed.
    """
    try:
        kept = keep_other(path, result) if keep_others else None
        write_result(path, result)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {path}: {error.strerror}") from error
    log.info("written: %s", path)
    if kept is not None:
        log.info("what was there is of another measurement and is now %s", kept)


def _contents(path: Path) -> str:
    try:
        return hashlib.sha256(path.expanduser().read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
