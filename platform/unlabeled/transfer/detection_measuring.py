"""What a detector finds in the pictures of a split, over all ranks, and how right it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unlabeled.distributed import comm
from unlabeled.transfer.coco_tools import coco_metrics
from unlabeled.transfer.detection_data import COCOSplit, VOCSplit
from unlabeled.transfer.detection_images import DetectionImages
from unlabeled.transfer.detection_objects import Objects
from unlabeled.transfer.detection_pictures import ahead, decoded
from unlabeled.transfer.detector import Detections, Detector
from unlabeled.transfer.voc_metrics import voc_metrics


@dataclass(frozen=True)
class Outcome:
    """Percentages on the test split, and the loss of every step on the way there."""

    metrics: dict[str, float]
    losses: list[float]


def measure(
    detector: Detector,
    images: DetectionImages,
    shown: Sequence[Objects],
    classes: Sequence[str],
    *,
    device: torch.device,
    workers: int,
) -> dict[str, float]:
    """Percentages, equal on every rank: AP, AP50, AP75, and mask_AP, ... if it finds masks.

    By the measure of the split's layout; `shown` are its objects. The ranks share the pictures.
    """
    found = detections(detector, images, device=device, workers=workers)
    (split,) = images.splits
    if isinstance(split, VOCSplit):
        return voc_metrics(shown, found, classes, year=split.year)
    assert isinstance(split, COCOSplit)
    # It takes minutes and gigabytes, which only one process of a machine should.
    metrics = coco_metrics(split, found, classes) if comm.rank() == 0 else {}
    return comm.all_gather_objects(metrics)[0]


@torch.no_grad()
def detections(
    detector: Detector, images: DetectionImages, *, device: torch.device, workers: int
) -> list[Detections]:
    """What is found in every picture, in order, one picture at a time; all on every rank."""
    detector.eval()
    own = range(comm.rank(), len(images), comm.world_size())
    pictures = ahead(lambda index: decoded(images, index), own, workers=workers, count=2 * workers)
    found = [detector.detect([picture.to(device)])[0] for picture in pictures]
    shares = comm.all_gather_objects(found)
    ranks = comm.world_size()
    return [shares[index % ranks][index // ranks] for index in range(len(images))]
