"""Several trainings of the same detector, whose mean counts, and where their state is kept."""

from __future__ import annotations

import hashlib
import json
import logging
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch

from unlabeled.config.check import to_data
from unlabeled.config.schema import Normalization
from unlabeled.data.normalize import Normalize
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.transfer.resnet_shape import resnet_of

log = logging.getLogger(__name__)

WORKERS = 4
"""Threads or processes that load images for a rank where loader.workers is null (Detectron2)."""

# SwAV's tables name AP50 first for VOC and AP for COCO.
ORDER = {
    "voc": ("AP50", "AP", "AP75"),
    "coco": ("AP", "AP50", "AP75", "mask_AP", "mask_AP50", "mask_AP75"),
}


class Settings(Protocol):
    """What this file reads of a benchmark's config."""

    @property
    def runs(self) -> int: ...
    @property
    def folder(self) -> str | None: ...


def mean_over_runs(
    probe: Probe,
    settings: Settings,
    order: Sequence[str],
    once: Callable[[int, Path], dict[str, float]],
) -> dict[str, float]:
    """The mean of once(seed, its folder) over seeds probe.seed, probe.seed + 1, ..."""
    runs = []
    with _folder(probe, settings) as folder:
        for number in range(settings.runs):
            seed = probe.seed + number
            metrics = once(seed, folder / f"seed{seed}")
            said = ", ".join(f"{name} {value:.2f}" for name, value in metrics.items())
            log.info("detection run %d/%d: %s", number + 1, settings.runs, said)
            runs.append(metrics)
    return averaged(runs, order)


def averaged(runs: list[dict[str, float]], order: Sequence[str]) -> dict[str, float]:
    """The mean of every metric in this order; with several runs also the sample deviation."""
    names = [name for name in order if name in runs[0]]
    metrics = {name: statistics.mean(run[name] for run in runs) for name in names}
    if len(runs) > 1:
        metrics |= {f"{n}_std": statistics.stdev(run[n] for run in runs) for n in names}
    return metrics


def loading_workers(probe: Probe) -> int:
    """Of a rank."""
    return WORKERS if probe.loader.workers is None else probe.loader.workers


def normalization_of(probe: Probe) -> Normalization:
    """Mean and deviation of the pixels that the backbone was trained with."""
    assert isinstance(probe.normalize, Normalize)
    return probe.normalize.normalization


@contextmanager
def _folder(probe: Probe, settings: Settings) -> Iterator[Path]:
    """Of this very measurement: below `folder`, or one that is removed afterwards."""
    if settings.folder is None:
        with tempfile.TemporaryDirectory(prefix="unlabeled-detection-") as path:
            yield Path(path)
        return
    digest = hashlib.sha256(json.dumps(to_data(settings), sort_keys=True).encode())
    digest.update(f"{probe.train.fingerprint()} {probe.test.fingerprint()}".encode())
    digest.update(str(normalization_of(probe)).encode())
    for tensor in resnet_of(probe.encode).state_dict().values():
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    yield Path(settings.folder).expanduser() / digest.hexdigest()[:12]
