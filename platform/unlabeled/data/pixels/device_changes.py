"""PIL's arithmetic for batches of images, one function per elementary step.

Each takes uint8 [n, 3, s, s] and float32 [n, 1, 1, k] and gives uint8 [n, 3, s, s]. Whole numbers
up to 2^24 are exact in float32, and nothing is summed in an order that the batch could change.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from unlabeled.data.pixels.box_blur import PASSES


def flip_horizontally(images: Tensor, _: Tensor) -> Tensor:
    """Mirror left to right."""
    return images.flip(3)


def flip_vertically(images: Tensor, _: Tensor) -> Tensor:
    """Mirror top to bottom."""
    return images.flip(2)


def _blend(images: Tensor, other: Tensor | float, factors: Tensor) -> Tensor:
    """PIL's blend: other + factor * (x - other), clipped and truncated, in single precision."""
    pixels = images.float().sub_(other).mul_(factors).add_(other)
    return pixels.clamp_(0, 255).to(torch.uint8)


def _luma(images: Tensor) -> Tensor:
    """(19595 R + 38470 G + 7471 B + 2^15) // 2^16, float32 [n, 1, s, s]."""
    red, green, blue = images.float().chunk(3, dim=1)
    luma = red.mul(19595).add_(green.mul(38470)).add_(blue.mul(7471))
    return luma.add_(2**15).mul_(2.0**-16).trunc_()


def adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with black."""
    return _blend(images, 0.0, factors)


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the rounded mean of each image's luma."""
    total = _luma(images).sum((1, 2, 3), keepdim=True, dtype=torch.float64).long()
    pixels = images.shape[2] * images.shape[3]
    mean = (2 * total + pixels).div(2 * pixels, rounding_mode="floor")  # rounded half up
    return _blend(images, mean.float(), factors)


def adjust_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the luma."""
    return _blend(images, _luma(images), factors)


def to_grayscale(images: Tensor, _: Tensor) -> Tensor:
    """The luma in all three channels."""
    return _luma(images).to(torch.uint8).expand_as(images)


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Invert from the threshold on."""
    return torch.where(images >= thresholds, 255 - images, images)


def adjust_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue by 0..255 of PIL's 8-bit HSV."""
    pixels = images.float()
    value = pixels.amax(1, keepdim=True)
    chroma = value - pixels.amin(1, keepdim=True)
    # Hue and saturation are truncated to 8 bits, where any rounding error makes a whole level.
    saturation = (chroma / value.clamp(min=1)).mul_(255).trunc_()
    hue = _hue(pixels, value, chroma).mul_(255).trunc_().add_(turns)
    hue -= 256 * (hue >= 256)
    # In sixths of the circle; a channel is value - value * saturation * (1 - share), where its
    # share of the pure hue is a trapezoid centred on red (0 and 6), green (2) or blue (4).
    sixths = hue * (6 / 255)
    missing = torch.cat(
        [2 - (sixths - 3).abs_(), (sixths - 2).abs_() - 1, (sixths - 4).abs_() - 1], dim=1
    )
    saturation = saturation.mul_(1 / 255).mul_(value)
    return (value - missing.clamp_(0, 1).mul_(saturation)).round_().to(torch.uint8)


def _hue(pixels: Tensor, value: Tensor, chroma: Tensor) -> Tensor:
    """The hue as a share of the circle, [n, 1, s, s] in [0, 1], 0 for greys."""
    red, green, blue = ((value - pixels) / chroma.clamp(min=1)).chunk(3, dim=1)
    hue = torch.where(
        pixels[:, :1] == value,
        blue - green,
        torch.where(pixels[:, 1:2] == value, red - blue + 2, green - red + 4),
    )
    # A tensor: GPUs replace division by a Python number by a multiplication with its reciprocal.
    hue /= torch.full_like(hue[:1, :1, :1, :1], 6)
    return hue - hue.floor()


def blur(images: Tensor, boxes: Tensor) -> Tensor:
    """Three box filters along rows, then three along columns, rounded after each as in PIL."""
    # PIL's weights are integers that mostly sum to less than one: halves are rounded down.
    weights = (boxes * (1 - 2.0**-19)).unbind(3)
    pixels = images.float()
    for axis in (3, 2):
        for _ in range(PASSES):
            pixels = _filtered(pixels, [weight[..., None] for weight in weights], axis).round_()
    return pixels.to(torch.uint8)


def _filtered(pixels: Tensor, weights: list[Tensor], axis: int) -> Tensor:
    """Weighted sums along an axis whose edges are continued; the weights [n, 1, 1, 1] symmetric.

    Zeros that lengthen the box of an image to that of another one change none of its sums.
    """
    half, size = len(weights) // 2, pixels.shape[axis]
    padded = pad(pixels, (half, half, 0, 0) if axis == 3 else (0, 0, half, half), "replicate")
    total = pixels * weights[half]
    for offset in range(1, half + 1):
        before, behind = (padded.narrow(axis, half + k, size) for k in (-offset, offset))
        total += (before + behind).mul_(weights[half + offset])
    return total


CHANGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
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
