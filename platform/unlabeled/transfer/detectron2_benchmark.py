"""One training and one measurement of a detector, from the benchmark's fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torchvision.models.resnet import ResNet

from unlabeled.config.schema import Normalization
from unlabeled.distributed import comm
from unlabeled.errors import ConfigError
from unlabeled.transfer.detection_data import DetectionSplit
from unlabeled.transfer.detectron2_config import detectron2_config
from unlabeled.transfer.detectron2_data import evaluator, register_split
from unlabeled.transfer.detectron2_training import measure, own_random_numbers, train_detector
from unlabeled.transfer.resnet_shape import shape_of

if TYPE_CHECKING:
    from unlabeled.evaluation.benchmarks.detection import Detection


@dataclass(frozen=True)
class Outcome:
    """Percentages on the test split, and the losses on the way there (on rank 0)."""

    metrics: dict[str, float]
    losses: list[float]


def train_and_measure(
    settings: Detection.Config,
    backbone: ResNet,
    normalization: Normalization,
    names: Sequence[str],
    *,
    train: Sequence[DetectionSplit],
    test: DetectionSplit,
    device: torch.device,
    workers: int,
    seed: int,
    folder: Path,
) -> Outcome:
    """Fine-tune a copy of the backbone in a detector of the classes `names`, and measure it.

    The global random numbers are left as they were. Checkpoints go to `folder` if the settings name
    a folder at all, and training continues from the newest one there. Called on all ranks.
    ConfigError if the batch does not divide among them, or for SyncBN among several on CPUs.
    """
    _check_ranks(settings, device)
    keep = settings.folder is not None
    folder.mkdir(parents=True, exist_ok=True)
    tested = register_split(test, names)
    cfg = detectron2_config(
        settings,
        shape_of(backbone),
        normalization,
        num_classes=len(names),
        train=[register_split(split, names) for split in train],
        test=tested,
        device=device,
        workers=workers,
        seed=seed,
        folder=str(folder),
    )
    with own_random_numbers(device):
        trained = train_detector(
            cfg, backbone.state_dict(), precise_bn=settings.precise_bn_iterations, keep=keep
        )
        judge = evaluator(test, tested, masks=cfg.MODEL.MASK_ON)
        return Outcome(measure(cfg, trained.model, judge), trained.losses)


def _check_ranks(settings: Detection.Config, device: torch.device) -> None:
    ranks = comm.world_size()
    if settings.batch_size % ranks:
        raise ConfigError(
            f"benchmark.batch_size: {settings.batch_size} images do not divide among {ranks} "
            "processes"
        )
    if ranks > 1 and settings.norm == "SyncBN" and device.type != "cuda":
        raise ConfigError(
            "benchmark.norm: torch synchronises batch norm on GPUs alone; with several processes "
            "on CPUs take benchmark.norm=BN"
        )
