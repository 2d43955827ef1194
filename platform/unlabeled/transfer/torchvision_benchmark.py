"""One training and one measurement of torchvision's detector, from the benchmark's fields."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.finetuning import INITIALISATION, drawing
from unlabeled.transfer.detection_images import DetectionImages
from unlabeled.transfer.detection_measuring import Outcome, measure
from unlabeled.transfer.detection_objects import objects_of
from unlabeled.transfer.detection_pictures import TrainingPictures, flipped
from unlabeled.transfer.detection_runs import loading_workers, normalization_of
from unlabeled.transfer.detection_training import Course, Keeping, train_detector
from unlabeled.transfer.resnet_shape import resnet_of
from unlabeled.transfer.torchvision_detector import RCNN

if TYPE_CHECKING:
    from unlabeled.evaluation.benchmarks.detection_torchvision import DetectionTorchvision


def train_and_measure(
    settings: DetectionTorchvision.Config,
    probe: Probe,
    names: Sequence[str],
    *,
    seed: int,
    folder: Path,
) -> Outcome:
    """Fine-tune a copy of the backbone in a detector of the classes `names`, and measure it.

    The state goes to `folder` if the settings name a folder at all, and training continues from
    there. Called on all ranks.
    """
    train, test = probe.train, probe.test
    assert isinstance(train, DetectionImages) and isinstance(test, DetectionImages)
    workers = loading_workers(probe)
    shown = objects_of(test.splits[0], names)  # damage is found before anything is trained
    with drawing(probe.device, seed, INITIALISATION):
        detector = RCNN(
            resnet_of(probe.encode),
            settings,
            normalization_of(probe),
            num_classes=len(names),
            device_type=probe.device.type,
        ).to(probe.device)
    losses = train_detector(
        detector,
        torch.optim.SGD(
            parameter_groups(detector, settings.weight_decay),
            lr=settings.lr,
            momentum=settings.momentum,
        ),
        _pictures(train, names, masks=settings.detector == "mask_rcnn_fpn"),
        Course(
            steps=settings.iterations,
            batch_size=settings.batch_size,
            rate=lambda step: rate(settings, step),
            seed=seed,
        ),
        device=probe.device,
        workers=workers,
        keeping=Keeping(folder / "training.pt", settings.checkpoint_iterations)
        if settings.folder is not None
        else None,
    )
    metrics = measure(detector, test, shown, names, device=probe.device, workers=workers)
    return Outcome(metrics, losses)


def _pictures(train: DetectionImages, names: Sequence[str], *, masks: bool) -> TrainingPictures:
    """Those that show an object, as Detectron2 chooses them; half of the views are mirrored."""
    objects = [each for split in train.splits for each in objects_of(split, names)]
    chosen = [place for place, each in enumerate(objects) if len(each.labels)]
    return TrainingPictures(train, objects, flipped, chosen=chosen, masks=masks)


def rate(settings: DetectionTorchvision.Config, step: int) -> float:
    """Share of lr: a linear warm-up, times 0.1 for every decay that is past."""
    share = 0.1 ** sum(step >= decay for decay in settings.decay_iterations)
    if step >= settings.warmup_iterations:
        return share
    done = step / settings.warmup_iterations
    return share * (settings.warmup_factor * (1 - done) + done)


def parameter_groups(detector: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Norms are not decayed (Detectron2)."""
    norms = {id(parameter) for parameter in _of_norms(detector)}
    learned = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in learned if id(p) not in norms], "weight_decay": weight_decay},
        {"params": [p for p in learned if id(p) in norms], "weight_decay": 0.0},
    ]


def _of_norms(detector: nn.Module) -> Iterator[nn.Parameter]:
    for module in detector.modules():
        if isinstance(module, _BatchNorm):
            yield from module.parameters(recurse=False)
