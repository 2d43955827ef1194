"""Settings and a backbone with which a detector trains on the CPU in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from tests_support.detection_sets import CLASSES
from unlabeled.evaluation.benchmarks.detection import Detection
from unlabeled.models.backbones.resnet import ResNet

# Anchors of the sizes of the patches, and a few regions an image instead of hundreds.
C4 = [
    *(
        "MODEL.ANCHOR_GENERATOR.SIZES",
        "[[32, 48]]",
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS",
        "[[1.0]]",
    ),
    *("MODEL.RPN.PRE_NMS_TOPK_TRAIN", 200, "MODEL.RPN.POST_NMS_TOPK_TRAIN", 50),
    *("MODEL.RPN.PRE_NMS_TOPK_TEST", 200, "MODEL.RPN.POST_NMS_TOPK_TEST", 20),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 16, "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 32),
    *("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 4),
]
FPN = [
    *("MODEL.ANCHOR_GENERATOR.SIZES", "[[16], [32], [48], [64], [96]]"),
    *("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[[1.0]]", "MODEL.FPN.OUT_CHANNELS", 32),
    *("MODEL.RPN.POST_NMS_TOPK_TRAIN", 50, "MODEL.RPN.POST_NMS_TOPK_TEST", 20),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 16, "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 32),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", 64, "MODEL.ROI_MASK_HEAD.CONV_DIM", 16),
]


def settings(root: Path, **changes: Any) -> Detection.Config:
    """A C4 detector on VOC's layout, unless changed."""
    fields: dict[str, Any] = {
        "root": str(root),
        "train": ["2007_trainval"],
        "classes": list(CLASSES),
        "runs": 1,
        "iterations": 60,
        "decay_iterations": [50],
        "batch_size": 4,
        "lr": 0.02,
        "warmup_iterations": 10,
        "norm": "BN",
        "precise_bn_iterations": 5,
        "train_sizes": [96],
        "test_size": 96,
        "detectron2": C4,
    }
    return Detection.Config(**fields | changes)


def resnet(depth: int = 50, width: float = 0.25) -> ResNet:
    """A narrow ResNet whose batch norms have statistics and scales of their own."""
    backbone = ResNet(ResNet.Config(depth=depth, width=width))
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return backbone


def fresh_resnet(width: float = 0.25, depth: Literal[18, 50] = 50) -> ResNet:
    """The same as it is initialised."""
    torch.manual_seed(0)
    return ResNet(ResNet.Config(depth=depth, width=width))
