"""DETR, small enough to train on the CPU in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unlabeled.evaluation.benchmarks.detection_detr import DetectionDETR

TRANSFORMER = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "num_queries": 8,
}


def detr_settings(root: Path | str, **changes: Any) -> DetectionDETR.Config:
    """Six pictures are two steps an epoch."""
    fields: dict[str, Any] = {
        "root": str(root),
        "epochs": 10,
        "decay_epochs": 8,
        "batch_size": 3,
        "lr": 0.001,
        "lr_backbone": 0.0001,
        "train_sizes": [64, 96],
        "test_size": 96,
        "options": TRANSFORMER,
    }
    return DetectionDETR.Config(**fields | changes)
