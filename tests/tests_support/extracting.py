"""Small extractions of features in the test's own process, and what they leave on disk."""

from __future__ import annotations

from pathlib import Path

import torch

from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import ExtractConfig
from unlabeled.evaluation.extraction import extract_features

FEW = ["loader.workers=0", "device=cpu", "threads=1", "batch_size=5", "shard_images=12"]
SMALL = [
    *("weights=random", "backbone=resnet18_small", "backbone.width=0.125"),
    *("transform@eval_transform=center_crop_small", "eval_transform.size=16", *FEW),
]
DRAWN = [
    *("dataset=synthetic", "dataset.num_samples=41", "dataset.num_classes=4"),
    *("dataset.image_size=16", "dataset.num_test_samples=9"),
]


def extract_config(out: Path, *overrides: str) -> ExtractConfig:
    """A narrow untrained network, on the data set that `overrides` name."""
    return _checked([*SMALL, f"out={out}", *overrides])


def config_of_run(out: Path, run: Path) -> ExtractConfig:
    """The network, data set and view of a run."""
    return _checked([*FEW, f"weights={run}", f"out={out}"])


def _checked(overrides: list[str]) -> ExtractConfig:
    composed = compose_config("extract", overrides)
    return build_config(ExtractConfig, composed.data, composed.problems)


def extracted(out: Path, *overrides: str) -> Path:
    """Features of 41 drawn images (or what `overrides` say) in `out`."""
    extract_features(extract_config(out, *DRAWN, *overrides), torch.device("cpu"))
    return out


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(found)}
