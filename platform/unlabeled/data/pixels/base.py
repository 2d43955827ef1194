"""The contract between what is decided about a view and the backends that do it."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from unlabeled.data.pixels.geometry import Box, Interpolation
from unlabeled.data.randomness import SampleKey, view_uniforms
from unlabeled.data.types import ViewSpec

Step = tuple[str, float]
"""One elementary change of a view's pixels: a name of STEPS and its number."""

PythonStep = Callable[[Image.Image], Image.Image]
"""A change that only the reference backend can make."""

Steps = tuple[Step | PythonStep, ...]

STEPS = {
    "horizontal_flip": "mirror left to right (no number)",
    "vertical_flip": "mirror top to bottom (no number)",
    "brightness": "blend with black: the factor, a multiple of 1/8192",
    "contrast": "blend with the mean grey: the factor, a multiple of 1/8192",
    "saturation": "blend with the luma: the factor, a multiple of 1/8192",
    "hue": "turn the hue: share of the full circle, in [-0.5, 0.5]",
    "grayscale": "all channels become the luma (no number)",
    "gaussian_blur": "blur: sigma in pixels of the view",
    "solarize": "invert values from this grey level on",
}
"""Every elementary step and what its number means."""


class ViewPlan(NamedTuple):
    """What happens to one view, before any pixel is touched."""

    spec: ViewSpec
    box: Box
    """Cut from the image, then resized to spec.size x spec.size with antialiasing."""
    interpolation: Interpolation
    steps: Steps
    """Done to the resized view, in this order."""


class Renderer(abc.ABC):
    """Makes views from an image and their plans; pure in its arguments.

    `releases_gil`: calls in several threads run at the same time.
    """

    releases_gil: bool = False

    def prepare(self) -> None:  # noqa: B027 - most backends have nothing to prepare
        """Do what is needed once, before threads or worker processes start."""

    def draw(self, key: SampleKey, views: int, count: int) -> list[list[float]]:
        """`randomness.view_uniforms`, which a backend may have in a faster form."""
        return view_uniforms(key, views, count)

    @abc.abstractmethod
    def __call__(
        self, image: np.ndarray, plans: Sequence[ViewPlan], out: Sequence[np.ndarray]
    ) -> None:
        """Write the views of an RGB uint8 image [h, w, 3] into `out`: uint8 [3, size, size] each.

        The arrays of `out` are C-contiguous (rows of a batch). May be called from several threads
        at once.
        """
