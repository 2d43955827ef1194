"""torchvision's detector, small enough to train on the CPU in seconds, and what a probe holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torchvision.models.resnet import ResNet

from tests_support.loading import loading
from tests_support.probes import Whole
from unlabeled.data.normalize import Normalize
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.benchmarks.detection_torchvision import DetectionTorchvision
from unlabeled.evaluation.subject import IMAGENET
from unlabeled.transfer.detection_data import Layout, detection_split
from unlabeled.transfer.detection_images import DetectionImages

CPU = torch.device("cpu")
REGIONS = {
    "rpn_pre_nms_top_n_train": 200,
    "rpn_post_nms_top_n_train": 50,
    "rpn_post_nms_top_n_test": 20,
    "rpn_batch_size_per_image": 32,
    "box_batch_size_per_image": 16,
}
"""A few regions an image instead of hundreds."""


def on_the_command_line(options: dict[str, int]) -> str:
    """As `benchmark.options=...` takes them."""
    return "{" + ", ".join(f"{name}: {value}" for name, value in options.items()) + "}"


def rcnn_settings(root: Path | str, **changes: Any) -> DetectionTorchvision.Config:
    """Mask R-CNN on COCO's layout, unless changed."""
    fields: dict[str, Any] = {
        "root": str(root),
        "layout": "coco",
        "train": ["train2017"],
        "test": "val2017",
        "detector": "mask_rcnn_fpn",
        "runs": 1,
        "iterations": 60,
        "decay_iterations": [50],
        "batch_size": 4,
        "lr": 0.02,
        "warmup_iterations": 10,
        "norm": "BN",
        "pyramid_channels": 32,
        "train_sizes": [96],
        "test_size": 96,
        "options": REGIONS,
    }
    return DetectionTorchvision.Config(**fields | changes)


def detection_probe(
    backbone: ResNet, root: Path | str, layout: Layout, train: str, test: str, seed: int = 0
) -> Probe:
    """As evaluation hands it to a detection benchmark."""
    return Probe(
        encode=backbone,
        backbone=backbone,
        feature_dim=1,
        train=DetectionImages([detection_split(layout, str(root), train)]),
        test=DetectionImages([detection_split(layout, str(root), test)]),
        pipeline=Whole(),
        normalize=Normalize(IMAGENET, CPU),
        device=CPU,
        batch_size=4,
        loader=loading(workers=0),
        seed=seed,
        cache={},
    )
