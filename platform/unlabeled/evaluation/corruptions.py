"""What robustness is measured under: test views turned, shrunk, or spoilt in five common ways.

Every change takes a view, uint8 [h, w, 3], and gives one of the same shape. The corruptions and
their strengths are those of ImageNet-C, which applies them to the 224 x 224 view, without its last
step of saving the result as a JPEG: Hendrycks and Dietterich, "Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations", ICLR 2019, arXiv:1903.12261, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO

import numpy as np
from PIL import Image

from unlabeled.data.randomness import SampleKey
from unlabeled.data.transforms.base import Pipeline

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]

SEVERITIES = 5
NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)  # standard deviation, of pixels in [0, 1]
BLUR = (1, 2, 3, 4, 6)  # standard deviation, in pixels
CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)  # factor of the distance from the mean
BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)  # added to the value
JPEG = (25, 18, 15, 10, 7)  # quality


class Changed(Pipeline):
    """The views of a pipeline after a change; its randomness is a function of (seed, sample)."""

    def __init__(self, pipeline: Pipeline, change: Change, seed: int) -> None:
        self._pipeline, self._change, self._seed = pipeline, change, seed
        self.views, self.releases_gil = pipeline.views, pipeline.releases_gil

    def prepare(self) -> None:
        """As the pipeline."""
        self._pipeline.prepare()

    def write(
        self,
        image: np.ndarray,
        key: SampleKey,
        views: Sequence[np.ndarray],
        deferred: Sequence[np.ndarray],
    ) -> None:
        self._pipeline.write(image, key, views, deferred)
        random = np.random.default_rng([self._seed, key.sample])
        for view in views:
            pixels = np.ascontiguousarray(view.transpose(1, 2, 0))
            view[...] = self._change(pixels, random).transpose(2, 0, 1)


def rotation(degrees: float) -> Change:
    """Turned counter-clockwise about the centre, bilinear; corners from outside are black."""
    return partial(_rotated, degrees)


def resolution(share: float) -> Change:
    """Shrunk to this share of its sides, at least a pixel, and enlarged again, both bilinear."""
    return partial(_shrunk, share)


def corruption(name: str, severity: int) -> Change:
    """One of `CORRUPTIONS` at a severity of 1 to 5."""
    return partial(CORRUPTIONS[name], severity - 1)


def _rotated(degrees: float, view: np.ndarray, random: np.random.Generator) -> np.ndarray:
    turned = Image.fromarray(view).rotate(degrees, Image.Resampling.BILINEAR)
    return np.asarray(turned)


def _shrunk(share: float, view: np.ndarray, random: np.random.Generator) -> np.ndarray:
    height, width = view.shape[:2]
    size = (max(1, round(share * width)), max(1, round(share * height)))
    small = Image.fromarray(view).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))


def _gaussian_noise(place: int, view: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """x + n, n normal of standard deviation NOISE, for every pixel and channel alone."""
    return _pixels(view / 255 + random.normal(0, NOISE[place], view.shape))


def _gaussian_blur(place: int, view: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Convolved with a Gaussian, cut at four standard deviations; the border is repeated."""
    sigma = BLUR[place]
    reach = 4 * sigma
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    blurred = view / 255
    for axis in (0, 1):
        length = blurred.shape[axis]
        around = [(reach, reach) if each == axis else (0, 0) for each in range(3)]
        padded = np.pad(blurred, around, mode="edge")
        windows = (padded.take(range(k, k + length), axis) for k in range(2 * reach + 1))
        blurred = sum(w * window for w, window in zip(weights, windows, strict=True))
    return _pixels(blurred)


def _contrast(place: int, view: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(x - m) c + m, with m the mean of each channel of the view."""
    mean = (view / 255).mean(axis=(0, 1))
    return _pixels((view / 255 - mean) * CONTRAST[place] + mean)


def _brightness(place: int, view: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The value v = max(r, g, b) raised to min(v + c, 1), hue and saturation kept."""
    value = view.max(axis=2, keepdims=True) / 255  # [h, w, 1]
    raised = np.minimum(value + BRIGHTNESS[place], 1)
    scale = raised / np.where(value > 0, value, 1)
    return _pixels(np.where(value > 0, view / 255 * scale, raised))


def _jpeg(place: int, view: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Encoded and decoded again, at PIL's default subsampling."""
    file = BytesIO()
    Image.fromarray(view).save(file, "JPEG", quality=JPEG[place])
    with Image.open(file) as image:
        return np.asarray(image)


def _pixels(values: np.ndarray) -> np.ndarray:
    """Uint8 of values in [0, 1], clipped and cut to whole numbers as ImageNet-C does."""
    whole: np.ndarray = (np.clip(values, 0, 1) * 255).astype(np.uint8)
    return whole


CORRUPTIONS: dict[str, Callable[[int, np.ndarray, np.random.Generator], np.ndarray]] = {
    "gaussian_noise": _gaussian_noise,
    "gaussian_blur": _gaussian_blur,
    "contrast": _contrast,
    "brightness": _brightness,
    "jpeg": _jpeg,
}
