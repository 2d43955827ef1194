"""The backend that defines the pixels: PIL, one operation after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from unlabeled.data.pixels.base import Steps, ViewPlan
from unlabeled.data.pixels.geometry import planar, resized_crop
from unlabeled.data.pixels.renderer import Renderer


class Reference(Renderer):
    """Crops, flips, colour and blur as torchvision does them to PIL images, bit for bit."""

    def __call__(
        self, image: np.ndarray, plans: Sequence[ViewPlan], out: Sequence[np.ndarray]
    ) -> None:
        picture = Image.fromarray(image)
        for plan, view in zip(plans, out, strict=True):
            crop = resized_crop(picture, plan.box, plan.spec.size, plan.interpolation)
            view[...] = planar(changed(crop, plan.steps))


def changed(image: Image.Image, steps: Steps) -> Image.Image:
    """The RGB image after the steps."""
    for step in steps:
        if callable(step):
            image = step(image)
        else:
            name, number = step
            image = CHANGES[name](image, number)
    return image


def flip_horizontally(image: Image.Image, _: float) -> Image.Image:
    """Mirror left to right: x'[i, j] = x[i, w - 1 - j]."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def flip_vertically(image: Image.Image, _: float) -> Image.Image:
    """Mirror top to bottom: x'[i, j] = x[h - 1 - i, j]."""
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)


def adjust_brightness(image: Image.Image, factor: float) -> Image.Image:
    """Blend with black: 0 gives black, 1 the image."""
    return Image.blend(Image.new("RGB", image.size), image, factor)


def adjust_contrast(image: Image.Image, factor: float) -> Image.Image:
    """Blend with the mean of the luma, rounded to a grey level: 0 gives that grey, 1 the image."""
    luma = np.frombuffer(image.convert("L").tobytes(), dtype=np.uint8)
    mean = int(luma.sum() / len(luma) + 0.5)
    return Image.blend(Image.new("RGB", image.size, (mean, mean, mean)), image, factor)


def adjust_saturation(image: Image.Image, factor: float) -> Image.Image:
    """Blend with the grey version: 0 gives grey, 1 the image."""
    return Image.blend(to_grayscale(image, 0.0), image, factor)


def adjust_hue(image: Image.Image, shift: float) -> Image.Image:
    """Turn the hue by `shift` of the full circle, in steps of 1/256 truncated towards zero."""
    hsv = image.convert("HSV")
    turn = Image.new("HSV", image.size, (int(shift * 255) % 256, 0, 0))
    return ImageChops.add_modulo(hsv, turn).convert("RGB")


def to_grayscale(image: Image.Image, _: float) -> Image.Image:
    """The luma 0.299 R + 0.587 G + 0.114 B in all three channels."""
    return image.convert("L").convert("RGB")


def blur(image: Image.Image, sigma: float) -> Image.Image:
    """PIL's three extended box blurs, which approximate a Gaussian of this standard deviation."""
    return image.filter(ImageFilter.GaussianBlur(radius=sigma))


def solarize(image: Image.Image, threshold: float) -> Image.Image:
    """x' = 255 - x where x >= threshold."""
    return image.point([x if x < threshold else 255 - x for x in range(256)] * 3)


CHANGES: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "horizontal_flip": flip_horizontally,
    "vertical_flip": flip_vertically,
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
    "grayscale": to_grayscale,
    "gaussian_blur": blur,
    "solarize": solarize,
}
