"""The image changes that the learned and the random policies draw from, and how strong they are.

Reference: Cubuk et al. 2019, "AutoAugment: Learning Augmentation Policies from Data", table 6, with
the ranges that torchvision gives its two policies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from PIL import Image
from torchvision.transforms import functional as F

from unlabeled.data.pixels.base import PythonStep

LARGEST = {
    "shear_x": 0.3,
    "shear_y": 0.3,
    "translate_x": 150 / 331,  # of the width: 150 of the 331 pixels of the paper's images
    "translate_y": 150 / 331,
    "rotate": 30.0,
    "brightness": 0.9,
    "color": 0.9,
    "contrast": 0.9,
    "sharpness": 0.9,
}
"""Changes that act in both directions, and their strongest: shares, degrees, or factor minus 1."""


def magnitude(name: str, place: int, bins: int) -> float:
    """How strong a change is at `place` 0..bins-1, from doing least to most; unsigned.

    posterize: bits kept, 8 to 4; solarize: threshold, 255 to 0; 0 for changes without a strength.
    """
    if name in LARGEST:
        # In float32 as torchvision, so that the factors of blends are the same to the last bit.
        return float(torch.linspace(0.0, LARGEST[name], bins)[place])
    if name == "posterize":
        return 8 - round(4 * place / (bins - 1))
    return float(torch.linspace(255.0, 0.0, bins)[place]) if name == "solarize" else 0.0


def change(name: str, strength: float) -> PythonStep:
    """The change of this name as a function of RGB PIL images; `strength` is its signed magnitude.

    Geometric changes take the nearest pixel and fill with black.
    """
    return partial(CHANGES[name], strength)


def _sheared(horizontal: float, vertical: float, image: Image.Image) -> Image.Image:
    """Columns and rows displaced by these multiples of the distance from the top left corner."""
    angles = [math.degrees(math.atan(share)) for share in (horizontal, vertical)]
    sheared: Image.Image = F.affine(
        image, angle=0.0, translate=[0, 0], scale=1.0, shear=angles, center=[0, 0]
    )
    return sheared


def _translated(horizontal: float, vertical: float, image: Image.Image) -> Image.Image:
    """Moved by these shares of the width and the height, in whole pixels towards zero."""
    pixels = [int(horizontal * image.width), int(vertical * image.height)]
    moved: Image.Image = F.affine(image, angle=0.0, translate=pixels, scale=1.0, shear=[0.0, 0.0])
    return moved


CHANGES: dict[str, Callable[[float, Image.Image], Image.Image]] = {
    "shear_x": lambda strength, image: _sheared(strength, 0.0, image),
    "shear_y": lambda strength, image: _sheared(0.0, strength, image),
    "translate_x": lambda strength, image: _translated(strength, 0.0, image),
    "translate_y": lambda strength, image: _translated(0.0, strength, image),
    "rotate": lambda strength, image: F.rotate(image, strength),
    "brightness": lambda strength, image: F.adjust_brightness(image, 1 + strength),
    "color": lambda strength, image: F.adjust_saturation(image, 1 + strength),
    "contrast": lambda strength, image: F.adjust_contrast(image, 1 + strength),
    "sharpness": lambda strength, image: F.adjust_sharpness(image, 1 + strength),
    "posterize": lambda strength, image: F.posterize(image, int(strength)),
    "solarize": lambda strength, image: F.solarize(image, strength),
    "autocontrast": lambda strength, image: F.autocontrast(image),
    "equalize": lambda strength, image: F.equalize(image),
    "invert": lambda strength, image: F.invert(image),
}
