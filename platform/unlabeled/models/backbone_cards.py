"""The page beside a backbone's weights that says what they are and how to load them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from torch import nn

import unlabeled
from unlabeled.config.check import build_config, to_data
from unlabeled.config.schema import Normalization
from unlabeled.data.whole_files import write_file
from unlabeled.errors import CheckpointError, ConfigError
from unlabeled.registry import Component

WEIGHTS_NAME = "backbone.safetensors"


@dataclass(frozen=True)
class Card:
    """What a page says: enough to build the backbone and to prepare images for it."""

    architecture: Annotated[Component, "backbone"]
    normalisation: Normalization
    image_size: int


def card_of(weights: Path) -> Path:
    """Where a weights file is described: backbone.json is the page of backbone.safetensors."""
    return weights.with_suffix(".json")


def write_card(
    weights: Path,
    backbone: nn.Module,
    component: Component,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    image_size: int,
) -> Path:
    """Describe the weights file; returns the path of the page.

    mean and std are those of the training images, in RGB order of pixels scaled to [0, 1];
    image_size is the side of the largest training crop in pixels.
    """
    card = {
        "architecture": to_data(component),
        "feature_dim": backbone.feature_dim,
        "normalisation": {"mean": list(mean), "std": list(std)},
        "image_size": image_size,
        "unlabeled_version": unlabeled.__version__,
        "how_to_load": _how_to_load(backbone, weights.name),
    }
    text = json.dumps(card, indent=2) + "\n"
    write_file(card_of(weights), lambda file: file.write(text.encode()))
    return card_of(weights)


def read_card(weights: Path) -> Card | None:
    """The page of a .safetensors file, or of backbone.safetensors in a folder; None without one.

    CheckpointError for a page that is damaged or of another version.
    """
    path = card_of(weights / WEIGHTS_NAME if weights.is_dir() else weights)
    if not path.is_file() or weights.suffix == ".json":
        return None
    try:
        content = json.loads(path.read_bytes())
        card = build_config(Card, {field.name: content[field.name] for field in fields(Card)})
    except (OSError, ValueError, LookupError, TypeError, ConfigError) as error:
        raise CheckpointError(
            f"{path} does not describe weights in a way that this version reads ({error}); remove "
            "it and say what they are with backbone=..., or convert them again"
        ) from error
    return card


def _how_to_load(backbone: nn.Module, weights: str) -> list[str]:
    """Lines of Python that rebuild the backbone as `m`, load the weights and compute features."""
    build = getattr(backbone, "how_to_load", None)
    if build is None:
        return ["Build the architecture above, then load the tensors: the names are its own."]
    return [
        *str(build).split("\n"),
        "from safetensors.torch import load_file",
        f"m.load_state_dict(load_file({weights!r}))",
        "m.eval()  # m(images [B, 3, h, w], scaled to [0, 1] and normalised) -> [B, feature_dim]",
    ]
