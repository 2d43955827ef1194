"""Crops larger than the images they are cut from are refused before training."""

from __future__ import annotations

import numpy as np

from unlabeled.config.schema import PretrainConfig
from unlabeled.data.decode import BrokenImage
from unlabeled.data.sources.base import Source
from unlabeled.data.transforms.base import Pipeline
from unlabeled.errors import ConfigError

LOOKED_AT = 16


def check_crop_sizes(source: Source, pipeline: Pipeline, config: PretrainConfig) -> None:
    """Compare the largest view with the median shorter side of a few images, evenly spaced.

    Of a stream that nobody counted, these are the first ones.
    """
    sides = []
    count = min(LOOKED_AT, len(source))
    last = len(source) - 1 if source.counted else count - 1
    for index in np.linspace(0, last, num=count, dtype=np.int64):
        try:
            sides.append(min(source.image(int(index)).shape[:2]))
        except BrokenImage:
            continue
    largest = max(view.size for view in pipeline.views)
    if sides and largest > np.median(sides):
        raise ConfigError(
            f"transform: crops of {largest} px are larger than the images of {config.dataset.name} "
            f"(median shorter side {int(np.median(sides))} px): every crop would be enlarged; give "
            "smaller crops (scale=small has 32 px) or larger images"
        )
