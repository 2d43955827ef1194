"""The contracts of view pipelines and of the operations they are made of."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np
from PIL import Image

from unlabeled.data.pixels.base import Steps
from unlabeled.data.pixels.chance import Chance
from unlabeled.data.pixels.reference import changed
from unlabeled.data.randomness import SampleKey
from unlabeled.data.types import ViewSpec


class Pipeline(abc.ABC):
    """An image in, views out; the constructor is `__init__(self, config)`.

    `views` says what comes out before any image is read; crops of equal size are adjacent.
    `releases_gil`: several threads of a process make views at the same time.
    `deferred_steps`: at most so many steps of a view are left for the device (0: none).
    """

    views: tuple[ViewSpec, ...]
    releases_gil: bool = False
    deferred_steps: int = 0

    def prepare(self) -> None:  # noqa: B027 - most pipelines have nothing to prepare
        """Do what is needed once, before threads or worker processes start."""

    @abc.abstractmethod
    def write(
        self,
        image: np.ndarray,
        key: SampleKey,
        views: Sequence[np.ndarray],
        deferred: Sequence[np.ndarray],
    ) -> None:
        """Write the views of an RGB uint8 image [h, w, 3]; pure in (image, key).

        views: V arrays uint8 [3, size, size], C-contiguous. deferred: where `deferred_steps` is not
        0, V arrays float64 [deferred_steps, 2] of (step code, number), see `data/pixels/table.py`;
        otherwise empty.
        """

    def __call__(self, image: np.ndarray, key: SampleKey) -> list[np.ndarray]:
        """The views of an image as new arrays, without what is left for the device."""
        shapes = [(3, spec.size, spec.size) for spec in self.views]
        views = [np.empty(shape, dtype=np.uint8) for shape in shapes]
        rows = len(self.views) if self.deferred_steps else 0
        self.write(image, key, views, [np.empty((self.deferred_steps, 2)) for _ in range(rows)])
        return views


class Operation(abc.ABC):
    """One random image operation; the constructor is `__init__(self, config)`.

    It consumes exactly `draws` uniform numbers, whatever it decides, so that adding an operation
    behind it never changes what it does. What it decides on are elementary steps that every backend
    knows; an operation with pixel work of its own says `in_python` and gives functions of PIL
    images instead, which only the reference backend can do.
    """

    draws: int
    max_steps: int = 1
    in_python: bool = False
    chance: Chance | None = None
    """How the decision is made, if it can be said so: then compiled code can make it."""

    @abc.abstractmethod
    def steps(self, uniforms: Sequence[float]) -> Steps:
        """What to do, from `draws` uniforms in [0, 1); () leaves the image as it is."""

    def __call__(self, image: Image.Image, uniforms: Sequence[float]) -> Image.Image:
        """The changed RGB image, as the reference backend makes it."""
        return changed(image, self.steps(uniforms))


class ChanceOperation(Operation):
    """An operation that is a `Chance` and nothing else: what it needs to say is said as data."""

    chance: Chance

    def __init__(self, chance: Chance) -> None:
        self.chance = chance
        self.draws, self.max_steps = chance.draws, len(chance.steps)

    def steps(self, uniforms: Sequence[float]) -> Steps:
        return self.chance.decide(uniforms)
