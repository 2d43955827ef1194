"""The contracts of view pipelines and of the operations they are made of."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import numpy as np
from PIL import Image

from unlabeled.data.types import ViewSpec


@dataclass(frozen=True)
class SampleKey:
    """What the randomness of a sample's views is a function of, beside the view's own number."""

    seed: int
    epoch: int
    sample: int


class Pipeline(abc.ABC):
    """An image in, a list of views out; the constructor is `__init__(self, config)`.

    `views` says what comes out before any image is read. Crops of equal size are adjacent.
    """

    views: tuple[ViewSpec, ...]

    @abc.abstractmethod
    def __call__(self, image: np.ndarray, key: SampleKey) -> list[np.ndarray]:
        """Views uint8 [3, size, size] of an RGB uint8 image [h, w, 3]; pure in (image, key)."""


class Operation(abc.ABC):
    """One random image operation; the constructor is `__init__(self, config)`.

    It consumes exactly `draws` uniform numbers, whatever it decides, so that adding an operation
    behind it never changes what it does.
    """

    draws: int

    @abc.abstractmethod
    def __call__(self, image: Image.Image, uniforms: np.ndarray) -> Image.Image:
        """The changed RGB image; `uniforms` are float64 in [0, 1), shape [draws]."""
