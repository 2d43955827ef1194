"""The labelled splits and the evaluation view that online probes use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unlabeled.config.schema import LoaderConfig, PretrainConfig
from unlabeled.data.normalize import Normalize
from unlabeled.data.sources.base import Source
from unlabeled.data.transforms.base import Pipeline
from unlabeled.errors import DataError


@dataclass(frozen=True)
class ProbeData:
    """Train and test splits with labels."""

    train: Source
    test: Source
    pipeline: Pipeline
    normalize: Callable[[Tensor], Tensor]
    batch_size: int
    loader: LoaderConfig


def probe_data(config: PretrainConfig, train: Source, device: torch.device) -> ProbeData | str:
    """What a probe needs, or why there is none: no labels, or no test split that matches."""
    if train.labels is None:
        return "the training images have no labels"
    try:
        test = config.dataset.build(split="test")
    except DataError as error:
        return str(error)
    if test.labels is None:
        return "the test images have no labels"
    if test.classes != train.classes:
        return "the training and the test images have different classes"
    return ProbeData(
        train=train,
        test=test,
        pipeline=config.eval_transform.build(),
        normalize=Normalize(config.normalization, device),
        batch_size=config.batch_size,
        loader=config.loader,
    )
