"""Drawn shapes whose class is plain to see: for tests and demonstrations, without any files."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from unlabeled.config.ranges import at_least
from unlabeled.data.randomness import SampleKey, uniforms
from unlabeled.data.sources.base import Source, Split
from unlabeled.registry import register

# Inside or outside of a shape of radius 1, from coordinates x, y (float [h, w]).
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "disc": lambda x, y: np.hypot(x, y) < 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.8,
    "ring": lambda x, y: abs(np.hypot(x, y) - 0.75) < 0.25,
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 1),
    "triangle": lambda x, y: (y < 0.8) & (abs(x) < (y + 1) / 2),
    "stripes": lambda x, y: (np.maximum(abs(x), abs(y)) < 1) & (np.floor(3 * y) % 2 == 0),
}


@register("dataset", "synthetic")
class Synthetic(Source):
    """One coloured shape on a faint gradient; a class is a shape with a hue.

    Sample i has class i mod num_classes; class c has shape c mod 6 and hue c / num_classes. Place,
    size and background vary with (seed, split, i). Images [image_size, image_size, 3] are drawn
    when asked for, so the set takes no memory.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        num_samples: int = 1000
        """Training images."""
        num_test_samples: int = 200
        """Test images."""
        num_classes: int = 10
        """Classes."""
        image_size: int = 32
        """Side of the images, in pixels."""
        seed: int = 0
        """Which images are drawn; the run's own seed does not change the data set."""

        def problems(self) -> Iterator[tuple[str, str]]:
            yield from at_least(
                self, 1, "num_samples", "num_test_samples", "num_classes", "image_size"
            )

    def __init__(self, config: Config, *, split: Split) -> None:
        self.config = config
        self.split = split
        count = config.num_samples if split == "train" else config.num_test_samples
        self._count = count
        self.labels = np.arange(count, dtype=np.int64) % config.num_classes
        shapes = tuple(SHAPES)
        self.classes = tuple(
            f"{shapes[number % len(shapes)]} {360 * number // config.num_classes} degrees"
            for number in range(config.num_classes)
        )

    def __len__(self) -> int:
        return self._count

    def image(self, index: int) -> np.ndarray:
        config = self.config
        label = index % config.num_classes
        # The view of the key keeps the two splits' draws apart.
        draws = uniforms(SampleKey(config.seed, 0, index), 0 if self.split == "train" else 1, 10)
        radius = 0.2 + 0.15 * draws[0]  # as a share of the side
        centre = radius + draws[1:3] * (1 - 2 * radius)
        grid = (np.arange(config.image_size) + 0.5) / config.image_size
        y, x = np.meshgrid(grid, grid, indexing="ij")  # [h, w]
        ramp = (x * draws[3] + y * (1 - draws[3]))[:, :, None]
        pixels = (1 - ramp) * draws[4:7] * 0.4 + ramp * draws[7:10] * 0.4  # [h, w, 3]
        shape = list(SHAPES.values())[label % len(SHAPES)]
        inside = shape((x - centre[0]) / radius, (y - centre[1]) / radius)
        pixels[inside] = colorsys.hsv_to_rgb(label / config.num_classes, 0.8, 1.0)
        rounded: np.ndarray = np.rint(pixels * 255)
        return rounded.astype(np.uint8)

    def name(self, index: int) -> str:
        """The split, the class and the place in the set."""
        return f"synthetic/{self.split}/{self.classes[index % self.config.num_classes]}/{index}"
