"""What is evaluated: a backbone, how its images are prepared, and where it came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from unlabeled.config.check import build_config
from unlabeled.config.schema import (
    EvaluateConfig,
    MeasuringConfig,
    Normalization,
    PretrainConfig,
)
from unlabeled.data.sources.base import Source, Split
from unlabeled.distributed.shards import whole
from unlabeled.engine.build import seed_everything
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.engine.stored_backbones import backbone_state
from unlabeled.errors import CheckpointError, ConfigError
from unlabeled.evaluation.benchmarks.base import OwnData
from unlabeled.models.backbone_cards import Card, read_card
from unlabeled.models.backbone_files import load_into
from unlabeled.registry import Component, get, load_plugins

IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Encoder:
    """A backbone ready to encode, and how its images are prepared."""

    backbone: nn.Module
    transform: Component
    normalization: Normalization
    run: RunDirectory | None


@dataclass(frozen=True)
class Subject:
    """A backbone ready to encode, with the data and the view it is measured on."""

    backbone: nn.Module
    dataset: str
    train: Source
    test: Source
    transform: Component
    normalization: Normalization
    run: RunDirectory | None
    """The run that the weights belong to, which is where results go."""

    @property
    def feature_dim(self) -> int:
        """Width of the features."""
        width: Any = self.backbone.feature_dim
        return int(width)


def load_subject(config: MeasuringConfig, measured: Split = "test") -> Subject:
    """The subject that `weights` names; the run, or `like`, says what the command leaves open.

    Where the training images themselves are measured, `test` is `train`: a test split is not asked
    for.
    """
    data = _own_data(config) or _named_data(config, measured)
    encoder = load_encoder(config)
    return Subject(
        backbone=encoder.backbone,
        dataset=data.name,
        train=data.train,
        test=data.test,
        transform=encoder.transform,
        normalization=encoder.normalization,
        run=encoder.run,
    )


def _own_data(config: MeasuringConfig) -> OwnData | None:
    """What the benchmark brings with it."""
    if not isinstance(config, EvaluateConfig):
        return None
    own: OwnData | None = config.benchmark.build().own_data()
    return own


def _named_data(config: MeasuringConfig, measured: Split) -> OwnData:
    dataset = named_dataset(config)
    train = dataset.build(split="train")
    test = train if measured == "train" else dataset.build(split="test")
    return OwnData(dataset.name, train, test)


def named_dataset(config: MeasuringConfig) -> Component:
    """The data set of the command, or else of the run; ConfigError where neither names one."""
    _must_exist(config.weights)
    _, known = _reference(config)
    dataset = config.dataset or (known.dataset if known else None)
    if dataset is None:
        raise ConfigError(
            f"dataset: weights={config.weights} does not say what to measure on; give dataset=... "
            "or like=<run>"
        )
    return dataset


def load_encoder(config: MeasuringConfig) -> Encoder:
    """What `load_subject` needs of the weights; no image is looked at."""
    _must_exist(config.weights)
    run, known = _reference(config)
    card = None if known else read_card(Path(config.weights).expanduser())
    return Encoder(
        backbone=_backbone(config, known, card),
        transform=config.eval_transform
        or (known.eval_transform if known else _default_transform()),
        normalization=config.normalization
        or (known.normalization if known else card.normalisation if card else IMAGENET),
        run=run,
    )


def _reference(config: MeasuringConfig) -> tuple[RunDirectory | None, PretrainConfig | None]:
    """The run of the weights, and the config of it or of `like`."""
    run = run_of(config.weights)
    reference = run or (RunDirectory(config.like) if config.like else None)
    return run, run_config(reference) if reference else None


def hash_weights(backbone: nn.Module) -> hashlib._Hash:
    """A SHA-256 of the names, types, shapes and bytes of all tensors, to be read or added to.

    All ranks call this for a sharded backbone, of which one tensor at a time is gathered.
    """
    digest = hashlib.sha256()
    for name, tensor in backbone.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(
            whole(tensor.detach()).cpu().contiguous().flatten().view(torch.uint8).numpy().data
        )
    return digest


def _default_transform() -> Component:
    return Component("transform", "center_crop", get("transform", "center_crop").Config())


def run_of(weights: str) -> RunDirectory | None:
    """The run that a path belongs to: the run, one of its checkpoints or its exported weights."""
    path = Path(weights).expanduser()
    if not path.exists():
        return None
    for folder in (path, *path.absolute().parents[:3]):
        if (folder / "config.yaml").is_file():
            return RunDirectory(folder)
    return None


def run_config(run: RunDirectory) -> PretrainConfig:
    """What a run was started with; CheckpointError if this version does not know its settings."""
    data = run.read_config()
    load_plugins(list(data.get("plugins") or []))
    try:
        return build_config(PretrainConfig, data)
    except ConfigError as error:
        raise CheckpointError(
            f"{run.config_file}: not a config of this version: {error}"
        ) from error


def _backbone(
    config: MeasuringConfig, known: PretrainConfig | None, card: Card | None
) -> nn.Module:
    """Build the architecture and fill it."""
    if config.weights.startswith("torchvision:"):
        return _torchvision_backbone(config.weights.removeprefix("torchvision:"))
    component = config.backbone or (
        known.backbone if known else card.architecture if card else None
    )
    if component is None:
        raise ConfigError(
            f"backbone: weights={config.weights} does not say its architecture; give backbone=... "
            "or like=<run>"
        )
    seed_everything(known.seed if known else config.seed, rank=0)
    backbone: nn.Module = component.build()
    if config.weights != "random":
        path = Path(config.weights).expanduser()
        load_into(backbone, backbone_state(path, backbone), origin=config.weights)
    return backbone


def _must_exist(weights: str) -> None:
    path = Path(weights).expanduser()
    if weights != "random" and not weights.startswith("torchvision:") and not path.exists():
        raise CheckpointError(
            f"weights: {path} does not exist; give a run, a checkpoint, a .safetensors file, "
            "torchvision:<name> or random"
        )


class _TorchvisionBackbone(nn.Module):
    """A torchvision classifier without its last layer."""

    def __init__(self, model: nn.Module, feature_dim: int) -> None:
        super().__init__()
        self.model, self.feature_dim = model, feature_dim

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features."""
        features: Tensor = self.model(images)
        return features


def _torchvision_backbone(name: str) -> nn.Module:
    """torchvision's model with its default weights (downloaded by torchvision at the first use)."""
    if name not in torchvision.models.list_models():
        raise ConfigError(f"weights: torchvision has no model {name!r}")
    try:
        model = torchvision.models.get_model(name, weights="DEFAULT")
    except OSError as error:
        raise CheckpointError(
            f"weights: torchvision could not fetch {name} ({error}); download it where there is a "
            "network and set TORCH_HOME"
        ) from error
    classifier = getattr(model, "fc", None)
    if not isinstance(classifier, nn.Linear):
        raise ConfigError(
            f"weights: torchvision:{name} has no final `fc` layer to take off; use a ResNet"
        )
    model.fc = nn.Identity()
    return _TorchvisionBackbone(model, classifier.in_features)


def frozen(backbone: nn.Module, device: torch.device) -> nn.Module:
    """The backbone on the device, in evaluation mode, without gradients."""
    return backbone.to(device).eval().requires_grad_(False)
