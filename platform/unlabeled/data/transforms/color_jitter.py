"""Change brightness, contrast, saturation and hue by random amounts, in random order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops

from unlabeled.data.transforms.drawn import DrawnOperation, probability_problems
from unlabeled.registry import register

Steps = tuple[tuple[str, float], ...]
"""(brightness | contrast | saturation | hue, factor), in the order in which they are applied."""


@register("transform", "color_jitter")
class ColorJitter(DrawnOperation[Steps]):
    """With probability p, change four colour properties one after another, in a random order.

    Brightness, contrast and saturation blend with black, with the image's mean grey and with its
    grey version: x' = (1 - f) * other + f * x, f uniform in [max(0, 1 - strength), 1 + strength],
    clipped to 0..255 and truncated to uint8 after each. Hue turns by a share of the full circle
    that is uniform in [-hue, hue], in PIL's 8-bit HSV. A strength of 0 leaves a property out.
    Bit-equal to torchvision's ColorJitter on PIL images with the same order and factors.
    Reference: SwAV's code (0.8, 0.8, 0.8, 0.2 with p = 0.8); SimCLR, appendix A (strength 1).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        p: float = 0.8
        """Probability of acting at all (SwAV: 0.8)."""
        brightness: float = 0.8
        """Half width of the interval of brightness factors around 1."""
        contrast: float = 0.8
        """Half width of the interval of contrast factors around 1."""
        saturation: float = 0.8
        """Half width of the interval of saturation factors around 1."""
        hue: float = 0.2
        """Largest hue shift, as a share of the full circle (at most 0.5)."""

        def problems(self) -> Iterator[tuple[str, str]]:
            yield from probability_problems(self.p)
            for name in ("brightness", "contrast", "saturation"):
                if getattr(self, name) < 0:
                    yield name, f"must not be negative, got {getattr(self, name)}"
            if not 0 <= self.hue <= 0.5:
                yield "hue", f"must lie in [0, 0.5] (half the circle), got {self.hue}"

    draws = 9  # whether, 4 for the order, 4 factors

    def __init__(self, config: Config) -> None:
        self.p = config.p
        self._ranges: list[tuple[str, float, float]] = [
            (name, max(0.0, 1 - strength), 1 + strength)
            for name, strength in (
                ("brightness", config.brightness),
                ("contrast", config.contrast),
                ("saturation", config.saturation),
            )
        ]
        self._ranges.append(("hue", -config.hue, config.hue))

    def parameters(self, uniforms: np.ndarray) -> Steps | None:
        """The steps; sorting four independent uniforms makes all 24 orders equally likely."""
        draws: list[float] = uniforms.tolist()
        if draws[0] >= self.p:
            return None
        steps = []
        for position in sorted(range(4), key=draws[1:5].__getitem__):
            name, low, high = self._ranges[position]
            if low < high:
                steps.append((name, low + draws[5 + position] * (high - low)))
        return tuple(steps)

    def apply(self, image: Image.Image, parameters: Steps) -> Image.Image:
        for name, factor in parameters:
            image = ADJUSTMENTS[name](image, factor)
        return image


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
    return Image.blend(image.convert("L").convert("RGB"), image, factor)


def adjust_hue(image: Image.Image, shift: float) -> Image.Image:
    """Turn the hue by `shift` of the full circle, in steps of 1/256 truncated towards zero."""
    hsv = image.convert("HSV")
    turn = Image.new("HSV", image.size, (int(shift * 255) % 256, 0, 0))
    return ImageChops.add_modulo(hsv, turn).convert("RGB")


ADJUSTMENTS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}
