"""The contract of a detector that is trained here, and what it finds."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from unlabeled.transfer.detection_pictures import Picture


@dataclass(frozen=True)
class Detections:
    """What was found in one picture."""

    boxes: np.ndarray
    """float32 [k, 4]: left, top, right, bottom in pixels of the picture as it was given."""
    scores: np.ndarray
    """float32 [k]."""
    labels: np.ndarray
    """int64 [k]."""
    masks: list[dict[str, Any]] | None = None
    """Run lengths as pycocotools has them, one a box."""


class Detector(nn.Module, abc.ABC):
    """A network that finds objects; pictures may differ in size."""

    @abc.abstractmethod
    def forward(self, pictures: Sequence[Picture]) -> Tensor:
        """The loss of a batch, a scalar, in training mode."""

    @abc.abstractmethod
    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        """What uint8 images [3, h, w] show, in evaluation mode; no gradient."""
