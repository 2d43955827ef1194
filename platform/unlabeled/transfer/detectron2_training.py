"""Train a detector with Detectron2's parts, and measure it with Detectron2's evaluators."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.engine import SimpleTrainer, hooks
from detectron2.evaluation import inference_on_dataset
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventWriter, JSONWriter, get_event_storage
from fvcore.nn.precise_bn import get_bn_modules
from torch import Tensor, nn

from unlabeled.distributed import comm
from unlabeled.distributed.group import data_parallel
from unlabeled.errors import DivergenceError
from unlabeled.transfer.detectron2_names import load_backbone

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30
LINES_PERIOD = 20
"""Iterations between two looks at the losses (Detectron2's own default)."""


@dataclass(frozen=True)
class Trained:
    """A detector after its last iteration."""

    model: nn.Module
    losses: list[float]
    """The total loss of every iteration of this process, averaged over ranks; on rank 0 alone."""


def train_detector(
    cfg: Any, backbone: Mapping[str, Tensor], *, precise_bn: int, keep: bool
) -> Trained:
    """Build the detector, fill its backbone, train; `backbone` has torchvision's names.

    precise_bn: batches whose statistics replace the running ones at the end (0: none).
    keep: write checkpoints to cfg.OUTPUT_DIR and continue from the newest one there (with other
    random draws than without the interruption, as Detectron2 does).
    DDP: gradients are averaged; batch norm is synchronised if cfg says SyncBN.
    DivergenceError when the loss is no longer finite.
    """
    seed_all_rng(cfg.SEED + comm.rank())
    model = build_model(cfg)
    load_backbone(model, backbone)
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    checkpointer = DetectionCheckpointer(
        model, cfg.OUTPUT_DIR, optimizer=optimizer, scheduler=scheduler
    )
    done = _continued(checkpointer) if keep else 0
    if done >= cfg.SOLVER.MAX_ITER:
        return Trained(model, [])
    parallel = data_parallel(model, torch.device(cfg.MODEL.DEVICE))
    trainer = SimpleTrainer(parallel, build_detection_train_loader(cfg), optimizer)
    trainer.register_hooks([hooks.LRScheduler(optimizer, scheduler)])
    if precise_bn > 0 and get_bn_modules(model):
        trainer.register_hooks([hooks.PreciseBN(0, parallel, _own_loader(cfg), precise_bn)])
    if comm.rank() == 0:
        if keep:
            period = cfg.SOLVER.CHECKPOINT_PERIOD
            trainer.register_hooks([hooks.PeriodicCheckpointer(checkpointer, period)])
        trainer.register_hooks([hooks.PeriodicWriter(_writers(cfg, keep), period=LINES_PERIOD)])
    try:
        trainer.train(done, cfg.SOLVER.MAX_ITER)
    except FloatingPointError as error:
        raise DivergenceError(f"detection: {error}; lower benchmark.lr") from error
    return Trained(model, _losses(trainer) if comm.rank() == 0 else [])


def measure(cfg: Any, model: nn.Module, evaluator: Any) -> dict[str, float]:
    """Percentages on the test split, equal on every rank: AP, AP50, AP75, and mask_AP, ...

    A detector that finds nothing has an AP of 0.
    """
    loader = build_detection_test_loader(cfg, cfg.DATASETS.TEST[0])
    results = comm.all_gather_objects(inference_on_dataset(model, loader, evaluator))[0]
    return {
        prefix + name: _finite(results[task][name])
        for task, prefix in (("bbox", ""), ("segm", "mask_"))
        if task in results
        for name in ("AP", "AP50", "AP75")
    }


@contextmanager
def own_random_numbers(device: torch.device) -> Iterator[None]:
    """Detectron2 seeds and draws from the global generators; afterwards they are as before."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _continued(checkpointer: DetectionCheckpointer) -> int:
    """Iterations that the newest checkpoint has seen, after loading it; 0 without one."""
    if not checkpointer.has_checkpoint():
        return 0
    found = checkpointer.resume_or_load("", resume=True)
    return int(found["iteration"]) + 1


def _finite(value: float) -> float:
    return float(value) if math.isfinite(value) else 0.0


def _own_loader(cfg: Any) -> Any:
    """A second pass over the training images, without processes of its own."""
    alone = cfg.clone()
    alone.defrost()
    alone.DATALOADER.NUM_WORKERS = 0
    return build_detection_train_loader(alone)


def _losses(trainer: SimpleTrainer) -> list[float]:
    return [value for value, _ in trainer.storage.history("total_loss").values()]


def _writers(cfg: Any, keep: bool) -> list[EventWriter]:
    lines: list[EventWriter] = [_Lines(cfg.SOLVER.MAX_ITER)]
    return [*lines, JSONWriter(f"{cfg.OUTPUT_DIR}/metrics.json")] if keep else lines


class _Lines(EventWriter):
    """A line for people, now and then."""

    def __init__(self, iterations: int) -> None:
        self._iterations, self._said = iterations, time.monotonic()

    def write(self) -> None:
        storage = get_event_storage()
        if time.monotonic() - self._said < SECONDS_BETWEEN_LINES:
            return
        self._said = time.monotonic()
        loss = storage.history("total_loss").median(LINES_PERIOD)
        log.info("detection %d/%d: loss %.3f", storage.iter + 1, self._iterations, loss)
