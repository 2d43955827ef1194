"""One training and one measurement of DETR, from the benchmark's fields."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.finetuning import INITIALISATION, drawing
from unlabeled.transfer.detection_images import DetectionImages
from unlabeled.transfer.detection_measuring import Outcome, measure
from unlabeled.transfer.detection_objects import objects_of
from unlabeled.transfer.detection_pictures import TrainingPictures
from unlabeled.transfer.detection_runs import loading_workers, normalization_of
from unlabeled.transfer.detection_training import Course, Keeping, train_detector
from unlabeled.transfer.detr_views import detr_view
from unlabeled.transfer.resnet_shape import resnet_of
from unlabeled.transfer.transformers_detr import DETR

if TYPE_CHECKING:
    from unlabeled.evaluation.benchmarks.detection_detr import DetectionDETR


def train_and_measure(
    settings: DetectionDETR.Config,
    probe: Probe,
    names: Sequence[str],
    *,
    seed: int,
    folder: Path,
) -> Outcome:
    """Fine-tune a copy of the backbone under DETR for the classes `names`, and measure it.

    The state goes to `folder` if the settings name a folder at all, and training continues from
    there. Called on all ranks.
    """
    train, test = probe.train, probe.test
    assert isinstance(train, DetectionImages) and isinstance(test, DetectionImages)
    workers = loading_workers(probe)
    shown = objects_of(test.splits[0], names)  # damage is found before anything is trained
    with drawing(probe.device, seed, INITIALISATION):
        detector = DETR(
            resnet_of(probe.encode),
            settings,
            normalization_of(probe),
            num_classes=len(names),
        ).to(probe.device)
    objects = objects_of(train.splits[0], names)
    pictures = TrainingPictures(
        train,
        objects,
        detr_view(settings.train_sizes),
        chosen=range(len(objects)),
        masks=False,
    )
    epoch = pictures.batch_length(settings.batch_size)
    losses = train_detector(
        detector,
        _optimizer(detector, settings),
        pictures,
        Course(
            steps=settings.epochs * epoch,
            batch_size=settings.batch_size,
            rate=lambda step: 0.1 ** (step // epoch // settings.decay_epochs),
            seed=seed,
            largest_gradient=settings.largest_gradient,
        ),
        device=probe.device,
        workers=workers,
        keeping=Keeping(folder / "training.pt", settings.checkpoint_epochs * epoch)
        if settings.folder is not None
        else None,
    )
    metrics = measure(detector, test, shown, names, device=probe.device, workers=workers)
    return Outcome(metrics, losses)


def _optimizer(detector: DETR, settings: DetectionDETR.Config) -> torch.optim.Optimizer:
    """Two rates: of the backbone, and of all that is new."""
    backbone = [p for p in detector.backbone.parameters() if p.requires_grad]
    known = {id(p) for p in detector.backbone.parameters()}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in detector.parameters() if id(p) not in known]},
        {"params": backbone, "lr": settings.lr_backbone},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay)
