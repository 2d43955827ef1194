"""The contract between what is decided about a view and the backends that do it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

from unlabeled.data.pixels.geometry import Box, Interpolation
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
