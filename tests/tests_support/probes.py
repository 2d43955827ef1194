"""Small labelled data sets and an encoder that a benchmark can be run on in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tests_support.loading import loading
from unlabeled.data.decode import BrokenImage
from unlabeled.data.randomness import SampleKey
from unlabeled.data.sources.base import Source
from unlabeled.data.transforms.base import Pipeline
from unlabeled.data.types import ViewSpec
from unlabeled.evaluation.benchmarks.base import Probe

SIDE = 4


class Pixels(Source):
    """Images [4, 4, 3] given as an array; those of `broken` cannot be decoded."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None,
        classes: tuple[str, ...],
        broken: frozenset[int] = frozenset(),
    ) -> None:
        self.images, self.labels, self.classes, self.broken = images, labels, classes, broken

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> np.ndarray:
        if index in self.broken:
            raise BrokenImage("truncated")
        return self.images[index]

    def name(self, index: int) -> str:
        return f"image-{index}"


class Whole(Pipeline):
    """The image as it is, plus noise of the sample and the epoch (0: none)."""

    def __init__(self, noise: int = 0) -> None:
        self.noise = noise
        self.views = (ViewSpec(SIDE, "global"),)
        self.releases_gil = True  # not really: threads start faster than processes

    def write(
        self,
        image: np.ndarray,
        key: SampleKey,
        views: Sequence[np.ndarray],
        deferred: Sequence[np.ndarray],
    ) -> None:
        random = np.random.default_rng([key.seed, key.epoch, key.sample])
        noisy = image + random.integers(0, self.noise + 1, image.shape)
        views[0][...] = noisy.clip(0, 255).transpose(2, 0, 1)


@dataclass(frozen=True)
class Blobs:
    """Classes of images around random means; `spread` in grey levels decides how they overlap."""

    classes: int
    spread: float

    def draw(self, count: int, seed: int) -> Pixels:
        """`count` images; all draws share the class means."""
        means = np.random.default_rng(0).uniform(60, 190, (self.classes, SIDE, SIDE, 3))
        random = np.random.default_rng(seed)
        labels = random.integers(0, self.classes, count)
        images = means[labels] + random.normal(0, self.spread, (count, SIDE, SIDE, 3))
        names = tuple(f"class-{number}" for number in range(self.classes))
        return Pixels(images.clip(0, 255).astype(np.uint8), labels, names)


def unit_range(images: Tensor) -> Tensor:
    """Pixels in [-1, 1]."""
    return images.float() / 127.5 - 1


def flatten(images: Tensor) -> Tensor:
    """The encoder: all pixels, [B, 48]."""
    return images.flatten(1)


def make_probe(
    train: Source,
    test: Source,
    *,
    encode: Callable[[Tensor], Tensor] = flatten,
    backbone: nn.Module | None = None,
    feature_dim: int = 3 * SIDE * SIDE,
    batch_size: int = 64,
    seed: int = 0,
) -> Probe:
    """A probe on the CPU with an empty cache."""
    return Probe(
        encode=encode,
        backbone=backbone or nn.Flatten(),
        feature_dim=feature_dim,
        train=train,
        test=test,
        pipeline=Whole(),
        normalize=unit_range,
        device=torch.device("cpu"),
        batch_size=batch_size,
        loader=loading(),
        seed=seed,
        cache={},
    )
